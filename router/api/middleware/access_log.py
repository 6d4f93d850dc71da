"""What happened, a line of JSON for each request: who answered, how long it took, never what was said.

The lines go to a file, since Ray keeps what its processes print to itself. Prompts are written only where the
settings ask for that.
"""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from time import perf_counter
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.api.middleware import error_responses
from slices import home

FILE_BYTES, FILES = 10_000_000, 5  # each, and older ones kept
PROMPT = 500  # characters
_WATCHERS = ("/health", "/ready", "/metrics")  # asked all the time: logged only where they fail
_SAID: Mapping[str, tuple[str, Callable[[str], str | bool | float]]] = {
    "x-mom-expert": ("expert", str),
    "x-mom-fallback": ("fallback", "true".__eq__),
    "x-mom-confidence": ("confidence", float),
}
_ERROR = b'data: {"error"'  # how a stream's error begins


def default_file() -> Path:
    """Where the lines go that are given no file."""
    return home.home() / "logs" / "access.jsonl"


def open_log(path: Path) -> logging.Logger:
    """A logger that appends lines to `path`, which begins anew every 10 MB.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # prompts may be in it
    log = logging.Logger("mom.access")  # of its own: no other handler repeats the lines
    log.addHandler(RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILES, encoding="utf-8"))
    return log


def note(scope: Scope, **facts: Any) -> None:
    """Add facts to the line of a request, for those who know them before it ends."""
    scope.setdefault("mom.facts", {}).update(facts)


class AccessLog:
    """ASGI middleware: one line for every request when it has ended."""

    def __init__(self, app: ASGIApp, log: logging.Logger, prompts: bool = False) -> None:
        """Log to `log`, with the beginning of the last prompt where `prompts` says so."""
        self._app, self._log, self._prompts = app, log, prompts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun, facts, seen = perf_counter(), dict[str, Any](), _Seen()
        scope["mom.facts"] = facts

        async def counted() -> Message:
            message = await receive()
            seen.bytes += len(message.get("body", b""))
            return message

        async def noted(message: Message) -> None:
            seen.note(message)
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except Exception:
            seen.broke()
            raise
        finally:
            self._write(scope, seen.told(), facts, perf_counter() - begun)

    def _write(self, scope: Scope, told: dict[str, Any], facts: dict[str, Any], seconds: float) -> None:
        if scope["path"] in _WATCHERS and told["status"] < 400:
            return
        prompt, usage = facts.pop("prompt", None), facts.pop("usage", None)
        if usage is not None:
            facts |= {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.tokens}
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": scope["method"],
            "path": scope["path"][:200],
            **told,
            "seconds": round(seconds, 4),
            **facts,
        }
        if self._prompts and prompt is not None:
            line["prompt"] = prompt[:PROMPT]
        self._log.info("%s", json.dumps(line))  # ASCII: no text can begin a line of its own


class _Seen:
    """What a request and its answer show of themselves as they pass."""

    def __init__(self) -> None:
        self.bytes, self._status, self._error = 0, 499, dict[str, str]()
        self._begun = self._ended = False
        self._headers: dict[str, Any] = {}

    def note(self, message: Message) -> None:
        """Take what a message of the answer tells."""
        if message["type"] == "http.response.start":
            self._begun, self._status = True, message["status"]
            headers = Headers(raw=message["headers"])
            said = {name: told(headers[key]) for key, (name, told) in _SAID.items() if key in headers}
            self._headers = {"id": headers.get("x-request-id"), **said}
            return
        body = message.get("body", b"")
        self._ended = not message.get("more_body", False)
        if body and (self._status >= 400 or body.startswith(_ERROR)):
            self._error = _error_of(body)

    def broke(self) -> None:
        """The application raised: starlette answers that further out, with 500, unless an answer began."""
        if not self._begun:
            self._status, self._error, self._ended = 500, {"error": error_responses.SERVER}, True

    def told(self) -> dict[str, Any]:
        """All of it for a line; `error` only where there was one."""
        half = {"error": "unfinished"} if self._begun and not self._ended else {}
        return {"status": self._status, **self._headers, "bytes": self.bytes, **(self._error or half)}


def _error_of(body: bytes) -> dict[str, str]:
    """The code of the error that a piece of an answer tells, where it has none the type."""
    try:
        error = json.loads(body.removeprefix(b"data: "))["error"]
        return {"error": error["code"] or error["type"]}
    except (ValueError, KeyError, TypeError):
        return {}
