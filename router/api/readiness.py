"""Readiness of the service (`GET /ready`): every expert has generated a token."""

import asyncio
from collections.abc import Collection
from contextlib import aclosing
from dataclasses import dataclass

from fastapi.responses import JSONResponse

from router.engine.worker import Engine
from router.errors import RouterError
from slices.errors import SliceError
from slices.runtime import Sampling

TIMEOUT = 5.0  # seconds of one call; a slow expert goes on loading meanwhile
_PROMPT = "Hello"


@dataclass(frozen=True)
class State:
    """The experts that have yet to generate a token, and the errors of those that failed."""

    waiting: tuple[str, ...]
    failed: dict[str, str]

    @property
    def ready(self) -> bool:
        """Whether all of them can answer."""
        return not self.waiting and not self.failed


class Readiness:
    """A probe that has every expert generate one token, once; the next call retries failed ones."""

    def __init__(self, engine: Engine, experts: Collection[str], timeout: float = TIMEOUT) -> None:
        self._engine, self._experts, self._timeout = engine, list(experts), timeout
        self._probes: dict[str, asyncio.Task[None]] = {}

    async def ready(self) -> JSONResponse:
        """Readiness: 200 when every expert has generated a token, 503 with what is missing before."""
        state = await self.state()
        if state.ready:
            return JSONResponse({"status": "ready", "experts": self._experts})
        body = {"status": "not ready", "waiting": list(state.waiting), "failed": state.failed}
        return JSONResponse(body, 503)

    async def state(self) -> State:
        """The state after at most `timeout` seconds."""
        for name in self._experts:
            probe = self._probes.get(name)
            if probe is None or (probe.done() and _error(probe)):
                self._probes[name] = asyncio.create_task(self._probe(name))
        await asyncio.wait(self._probes.values(), timeout=self._timeout)
        waiting = [name for name, probe in self._probes.items() if not probe.done()]
        done = {name: probe for name, probe in self._probes.items() if probe.done()}
        failed = {name: error for name, probe in done.items() if (error := _error(probe))}
        return State(tuple(sorted(waiting)), failed)

    async def _probe(self, name: str) -> None:
        events = self._engine.stream(name, _PROMPT, Sampling(max_tokens=1, temperature=0))
        async with aclosing(events):
            async for _ in events:
                pass


def _error(task: "asyncio.Task[None]") -> str | None:
    error = task.exception()
    if error is None:
        return None
    return str(error) if isinstance(error, RouterError | SliceError) else type(error).__name__
