"""What happened, a line of JSON for each request: who answered, how long it took, never what was said.

The lines go to a file, since Ray keeps what its processes print to itself. Prompts are written only where the
settings ask for that.
"""

import json
import logging
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from time import perf_counter
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slices import home

FILE_BYTES, FILES = 10_000_000, 5  # each, and older ones kept
PROMPT = 500  # characters
_WATCHERS = ("/health", "/ready", "/metrics")  # asked all the time: logged only where they fail
_SAID = {"x-mom-expert": "expert", "x-mom-fallback": "fallback", "x-mom-confidence": "confidence"}


def default_file() -> Path:
    """Where the lines go that are given no file."""
    return home.home() / "logs" / "access.jsonl"


def open_log(path: Path) -> logging.Logger:
    """A logger that appends lines to `path`, which begins anew every 10 MB.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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
        begun, facts = perf_counter(), dict[str, Any]()
        scope["mom.facts"] = facts
        told: dict[str, Any] = {"status": 499}

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = Headers(raw=message["headers"])
                told.update(status=message["status"], id=headers.get("x-request-id"))
                told.update({name: headers[key] for key, name in _SAID.items() if key in headers})
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._write(scope, told, facts, perf_counter() - begun)

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
