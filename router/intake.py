"""Reading a request: its body within a limit, its JSON into a model, and whether anyone still waits.

Only what stands between the socket and a checked request; what is done with it is `router.app`'s.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.problems import invalid

Body = TypeVar("Body", bound=BaseModel)
Result = TypeVar("Result")


class BodyLimit:
    """ASGI middleware: refuse a body over `limit` bytes (413), by its length header or while it is read."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app with a `receive` that counts."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        said = dict(scope["headers"]).get(b"content-length", b"0")
        announced = int(said) if said.isdigit() else 0
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if max(read, announced) > self._limit and message["type"] == "http.request":
                raise HTTPException(413, f"the request body is over {self._limit} bytes")
            return message

        await self._app(scope, counted, send)


async def parsed(model: type[Body], request: Request) -> Body:
    """The request's body as a `model`.

    Raises:
        BadRequest: it is not JSON, or a field is missing or wrong.
    """
    body = await request.body()
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None


async def while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """The result of `work`, which is cancelled when the client hangs up. The body must have been read.

    Raises:
        ClientDisconnect: the client hung up first.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
