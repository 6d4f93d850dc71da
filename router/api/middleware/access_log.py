"""Access log: one JSON line a request, with its expert, duration and tokens, never its text.

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

FILE_BYTES, BACKUP_FILES = 10_000_000, 5
PROMPT_CHARS = 500
FIELDS = "mom.log_fields"  # in the ASGI scope
_PROBES = ("/health", "/ready", "/metrics")  # polled: logged only where they fail
_HEADER_FIELDS: Mapping[str, tuple[str, Callable[[str], str | bool | float]]] = {
    "x-mom-expert": ("expert", str),
    "x-mom-fallback": ("fallback", "true".__eq__),
    "x-mom-confidence": ("confidence", float),
}
_SSE_ERROR = b'data: {"error"'  # how the error event of a stream begins


def default_file() -> Path:
    """The access log in mom's home."""
    return home.home() / "logs" / "access.jsonl"


def open_log(path: Path) -> logging.Logger:
    """A logger that appends lines to `path`, rotated every 10 MB.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # prompts may be in it
    log = logging.Logger("mom.access")  # of its own: no other handler repeats the lines
    log.addHandler(RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=BACKUP_FILES, encoding="utf-8"))
    return log


def add_log_fields(scope: Scope, **fields: Any) -> None:
    """Add fields to the request's line: its `prompt`, its `response` (a `ResponseState`)."""
    scope.setdefault(FIELDS, {}).update(fields)


class AccessLogMiddleware:
    """ASGI middleware that writes one line for every request when it has ended."""

    def __init__(self, app: ASGIApp, log: logging.Logger, prompts: bool = False) -> None:
        """Write to `log`, with the beginning of the last prompt if `prompts`."""
        self._app, self._log, self._prompts = app, log, prompts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start, exchange = perf_counter(), _Exchange()
        scope[FIELDS] = fields = dict[str, Any]()

        async def observing_receive() -> Message:
            message = await receive()
            exchange.request_bytes += len(message.get("body", b""))
            return message

        async def observing_send(message: Message) -> None:
            exchange.observe(message)
            await send(message)

        try:
            await self._app(scope, observing_receive, observing_send)
        except Exception:
            exchange.fail()
            raise
        finally:
            self._write(scope, exchange.fields(), fields, perf_counter() - start)

    def _write(self, scope: Scope, exchange: dict[str, Any], fields: dict[str, Any], seconds: float) -> None:
        if scope["path"] in _PROBES and exchange["status"] < 400:
            return
        prompt, response = fields.pop("prompt", None), fields.pop("response", None)
        if response is not None:
            fields |= {
                "prompt_tokens": response.prompt_tokens,
                "completion_tokens": response.completion_tokens,
            }
        line = {
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": scope["method"],
            "path": scope["path"][:200],
            **exchange,
            "duration_seconds": round(seconds, 4),
            **fields,
        }
        if self._prompts and prompt is not None:
            line["prompt"] = prompt[:PROMPT_CHARS]
        self._log.info("%s", json.dumps(line))  # ASCII: no text can begin a line of its own


class _Exchange:
    """The fields of a line that come from the messages of a request and its response."""

    def __init__(self) -> None:
        self.request_bytes, self._status, self._error = 0, 499, dict[str, str]()
        self._started = self._complete = False
        self._header_fields: dict[str, Any] = {}

    def observe(self, message: Message) -> None:
        """Take the fields of a message of the response."""
        if message["type"] == "http.response.start":
            self._started, self._status = True, message["status"]
            headers = Headers(raw=message["headers"])
            self._header_fields = {
                "request_id": headers.get("x-request-id"),
                **{
                    field: parse(headers[name])
                    for name, (field, parse) in _HEADER_FIELDS.items()
                    if name in headers
                },
            }
            return
        body = message.get("body", b"")
        self._complete = not message.get("more_body", False)
        if body and (self._status >= 400 or body.startswith(_SSE_ERROR)):
            self._error = _error_field(body)

    def fail(self) -> None:
        """The application raised: starlette responds with 500 further out, unless a response began."""
        if not self._started:
            self._status, self._error, self._complete = 500, {"error": error_responses.SERVER_ERROR}, True

    def fields(self) -> dict[str, Any]:
        """All fields; `error` only where there was one."""
        truncated = {"error": "unfinished"} if self._started and not self._complete else {}
        return {
            "status": self._status,
            **self._header_fields,
            "request_bytes": self.request_bytes,
            **(self._error or truncated),
        }


def _error_field(body: bytes) -> dict[str, str]:
    """The code of an error body or event, its type where it has no code."""
    try:
        error = json.loads(body.removeprefix(b"data: "))["error"]
        return {"error": error["code"] or error["type"]}
    except (ValueError, KeyError, TypeError):
        return {}
