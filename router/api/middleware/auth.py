"""Before the application: who asks, how often, and what every answer carries. ASGI; knows of no expert.

Cross-origin requests get no leave: no answer carries CORS headers, so a browser keeps them from other sites.
"""

import re
import uuid
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.api.middleware.api_keys import Keys
from router.api.middleware.error_responses import answer_to
from router.errors import NotAllowed, TooOften

OPEN = ("/", "/health", "/ready")  # the page, which holds nothing yet; what the watchers ask
ASKERS = 10_000  # whose pace is remembered; with more, the longest silent are forgotten
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CARRIED = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class Pace:
    """So many requests a minute for each who asks: a bucket of as many tokens that fills steadily."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = monotonic) -> None:
        self._most, self._clock = per_minute, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str) -> float:
        """Count a request; returns the seconds to wait where it is one too many, else 0."""
        now = self._clock()
        left, since = self._left.pop(who, (float(self._most), now))
        left = min(float(self._most), left + (now - since) * self._most / 60)
        short = left < 1
        self._left[who] = (left if short else left - 1, now)
        if len(self._left) > ASKERS:
            self._left.popitem(last=False)
        return (1 - left) * 60 / self._most if short else 0.0


class Guard:
    """ASGI middleware: refuses (401, 429) before anything is read, and marks every answer with an id."""

    def __init__(self, app: ASGIApp, keys: Keys | None = None, pace: Pace | None = None) -> None:
        """Guard `app`; without `keys` everyone may ask, and is told apart by the address."""
        self._app, self._keys, self._pace = app, keys, pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application answer."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        marked = _marking(send, headers.get("x-request-id", ""))
        try:
            if scope["path"] not in OPEN:
                self._admit(scope, headers)
        except (NotAllowed, TooOften) as error:
            return await answer_to(error)(scope, receive, marked)
        await self._app(scope, receive, marked)

    def _admit(self, scope: Scope, headers: dict[str, str]) -> None:
        who = (scope.get("client") or ("nobody",))[0]
        if self._keys is not None:
            kind, _, key = headers.get("authorization", "").partition(" ")
            owner = self._keys.owner(key.strip()) if kind.lower() == "bearer" else None
            if owner is None:
                raise NotAllowed("expected a known API key, as `Authorization: Bearer KEY`")
            who = f"key {owner}"
        if self._pace is not None and (wait := self._pace.take(who)):
            raise TooOften(f"too many requests; the next may come in {wait:.1f} s", wait)


class IdLeftOut:
    """ASGI middleware for an app behind a server that adds `x-request-id` itself, as Ray's proxy does."""

    def __init__(self, app: ASGIApp) -> None:
        """Answer as `app` does, without the header: it would be there twice."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let `app` answer."""

        async def unmarked(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["x-request-id"]
            await send(message)

        await self._app(scope, receive, unmarked)


def _marking(send: Send, wished: str) -> Send:
    """`send`, with the request's id and what every answer carries; a header of the answer's own stays."""
    name = wished if _ID.fullmatch(wished) else uuid.uuid4().hex

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for key, value in {**_CARRIED, "x-request-id": name}.items():
                headers.setdefault(key, value)
        await send(message)

    return marked
