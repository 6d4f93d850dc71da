"""Request bodies within a limit: 413 for a larger one."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


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
