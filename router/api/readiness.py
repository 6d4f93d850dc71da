"""Whether the service can answer: a token came out of every expert. Asked at `GET /ready`."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from router.engine.worker import Engine
from router.errors import RouterError
from slices.errors import SliceError
from slices.runtime import Sampling

PATIENCE = 5.0  # seconds that one call waits; a slow expert goes on waking up meanwhile
_ASKED = "Hello"


@dataclass(frozen=True)
class State:
    """Which experts have yet to say a token, and why those failed that did."""

    waiting: tuple[str, ...]
    failed: dict[str, str]

    @property
    def ready(self) -> bool:
        """Whether all of them can answer."""
        return not self.waiting and not self.failed


class Readiness:
    """Has every expert say one token, once; an expert that failed is tried again at the next call."""

    def __init__(self, engine: Engine, experts: Collection[str], patience: float = PATIENCE) -> None:
        self._engine, self._experts, self._patience = engine, list(experts), patience
        self._tries: dict[str, asyncio.Task[None]] = {}

    async def state(self) -> State:
        """How far they are, after waiting a little for those that are not."""
        for name in self._experts:
            done = self._tries.get(name)
            if done is None or (done.done() and _why(done)):
                self._tries[name] = asyncio.create_task(self._wake(name))
        await asyncio.wait(self._tries.values(), timeout=self._patience)
        waiting = [name for name, each in self._tries.items() if not each.done()]
        failed = {name: why for name, each in self._tries.items() if each.done() and (why := _why(each))}
        return State(tuple(sorted(waiting)), failed)

    async def _wake(self, name: str) -> None:
        events = self._engine.stream(name, _ASKED, Sampling(max_tokens=1, temperature=0))
        async with aclosing(events):
            async for _ in events:
                pass


def told(state: State, experts: Sequence[str]) -> dict[str, object]:
    """The state as the endpoint says it."""
    if state.ready:
        return {"status": "ready", "experts": list(experts)}
    return {"status": "not ready", "waiting": list(state.waiting), "failed": state.failed}


def _why(task: "asyncio.Task[None]") -> str | None:
    error = task.exception()
    if error is None:
        return None
    return str(error) if isinstance(error, RouterError | SliceError) else type(error).__name__
