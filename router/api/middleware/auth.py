"""Authentication, rate limiting and response headers, before the application. ASGI; knows of no expert.

No response carries CORS headers, so browsers keep them from other sites.
"""

import re
import uuid
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.api.middleware.api_keys import ApiKeys
from router.api.middleware.error_responses import response
from router.errors import RateLimitExceeded, Unauthorized

PUBLIC_PATHS = ("/", "/health", "/ready")  # the page, which holds no data, and the probes
MAX_CLIENTS = 10_000  # whose rate is remembered; beyond that the longest silent are forgotten
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class RateLimiter:
    """A token bucket for each client: it holds a minute's requests and refills steadily."""

    def __init__(self, requests_per_minute: int, clock: Callable[[], float] = monotonic) -> None:
        self._capacity, self._clock = float(requests_per_minute), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens left, at what time

    def acquire(self, client: str) -> float:
        """Count a request; returns 0, or the seconds to wait where it exceeds the limit."""
        now = self._clock()
        tokens, since = self._buckets.pop(client, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - since) * self._capacity / 60)
        exceeded = tokens < 1
        self._buckets[client] = (tokens if exceeded else tokens - 1, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return (1 - tokens) * 60 / self._capacity if exceeded else 0.0


class AuthMiddleware:
    """ASGI middleware: 401 and 429 before the body is read; request id and security headers for all."""

    def __init__(
        self, app: ASGIApp, keys: ApiKeys | None = None, rate_limiter: RateLimiter | None = None
    ) -> None:
        """Protect `app`; without `keys` every client is accepted, and identified by its address."""
        self._app, self._keys, self._rate_limiter = app, keys, rate_limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or run the app."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        send = _with_headers(send, headers.get("x-request-id", ""))
        try:
            if scope["path"] not in PUBLIC_PATHS:
                self._admit(scope, headers)
        except (Unauthorized, RateLimitExceeded) as error:
            return await response(error)(scope, receive, send)
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope, headers: dict[str, str]) -> None:
        client = (scope.get("client") or ("unknown",))[0]
        if self._keys is not None:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            owner = self._keys.owner(key.strip()) if scheme.lower() == "bearer" else None
            if owner is None:
                raise Unauthorized("expected a known API key, as `Authorization: Bearer KEY`")
            client = f"key {owner}"
        if self._rate_limiter is not None and (wait := self._rate_limiter.acquire(client)):
            raise RateLimitExceeded(f"too many requests; the next may come in {wait:.1f} s", wait)


class StripRequestId:
    """ASGI middleware that removes `x-request-id`, for an app behind a server that adds one (Ray's proxy)."""

    def __init__(self, app: ASGIApp) -> None:
        """Respond as `app` does, without the header: it would be there twice."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""

        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["x-request-id"]
            await send(message)

        await self._app(scope, receive, send_without_id)


def _with_headers(send: Send, client_id: str) -> Send:
    """`send` with the request's id, the client's own if that is valid, and default security headers."""
    request_id = client_id if _REQUEST_ID.fullmatch(client_id) else uuid.uuid4().hex

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in {**_SECURITY_HEADERS, "x-request-id": request_id}.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
