"""Strict JSON bodies in FastAPI: parsed by pydantic, which refuses lone surrogates and all but UTF-8."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException


class JsonRequest(Request):
    """A request whose body must be strict JSON; NaN is left to the models, which name the field."""

    async def json(self) -> Any:
        """The parsed body.

        Raises:
            HTTPException: 400, it is not JSON or nested too deep.
        """
        try:
            return from_json(await self.body())
        except ValueError as error:
            raise HTTPException(400, f"the request body is not JSON: {error}") from None


class JsonRoute(APIRoute):
    """A route that reads its body as `JsonRequest` does."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """FastAPI's handler, called with a `JsonRequest`."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(JsonRequest(request.scope, request.receive))

        return strict
