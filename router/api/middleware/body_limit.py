"""Limit on request bodies: 413 for a larger one."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimitMiddleware:
    """ASGI middleware that refuses a body over `limit` bytes, by its content-length or while it is read."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app with a `receive` that counts bytes.

        Raises:
            HTTPException: 413.
        """
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        header = dict(scope["headers"]).get(b"content-length", b"0")
        content_length = int(header) if header.isdigit() else 0
        read = 0

        async def counting_receive() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if max(read, content_length) > self._limit and message["type"] == "http.request":
                raise HTTPException(413, f"the request body is over {self._limit} bytes")
            return message

        await self._app(scope, counting_receive, send)
