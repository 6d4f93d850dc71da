"""Reading a request: its body within a limit, its JSON into a model, and whether anyone still waits.

Only what stands between the socket and a checked request; what is done with it is `router.api.app`'s.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from router.api.middleware.error_responses import invalid

Body = TypeVar("Body", bound=BaseModel)
Result = TypeVar("Result")


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
