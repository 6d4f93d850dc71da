"""Asking a model from async code: one thread a runtime, one request at a time, pieces as they come.

A runtime blocks and belongs to one caller at a time, so each gets a thread that nothing else runs on.
Giving up an answer (closing its iterator) stops the run at the next piece and frees the thread.
Nothing here knows of HTTP, chat or Ray; `router.serve` runs one `Worker` in each replica.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from router.errors import ExpertFailed, Overloaded, UnknownModel
from router.stops import until_stop
from slices.runtime import Piece, Runtime, Sampling

CLOSED = "the expert was shut down while it answered"


@dataclass(frozen=True)
class Begun:
    """What an engine yields first: the model is at work on a prompt of so many tokens."""

    prompt_tokens: int


Event: TypeAlias = Begun | Piece
OpenRuntime: TypeAlias = Callable[[], Runtime]


class Engine(Protocol):
    """Runs experts by name."""

    def stream(self, expert: str, prompt: str, sampling: Sampling) -> AsyncGenerator[Event]:
        """`Begun`, then pieces; the last one has a `finish`. Closing it frees the expert.

        Raises:
            UnknownModel, Overloaded, ExpertFailed: no such expert, too many wait, or it gave up.
        """
        ...


class Worker:
    """One runtime in a thread of its own, opened when first asked."""

    def __init__(self, open_runtime: OpenRuntime, queue: int = 32) -> None:
        self._open = open_runtime
        self._room = queue + 1
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="expert")
        self._runtime: Runtime | None = None
        self._jobs: set[_Job] = set()

    def start(self) -> None:
        """Open the runtime now, and wait for it. Raises what opening it raises."""
        self._thread.submit(self._opened).result()

    async def stream(self, prompt: str, sampling: Sampling) -> AsyncGenerator[Event]:
        """`Begun`, then pieces. Raises `Overloaded` if `queue` others wait already."""
        if len(self._jobs) >= self._room:
            raise Overloaded(f"{len(self._jobs)} requests are waiting already; try again later")
        job = _Job(prompt, sampling, asyncio.get_running_loop())
        self._jobs.add(job)
        future = self._thread.submit(self._run, job)
        future.add_done_callback(job.end)
        try:
            while (event := await job.events.get()) is not None:
                yield event
            if future.cancelled():
                raise ExpertFailed(CLOSED)
            await asyncio.wrap_future(future)
        finally:
            job.cancelled.set()
            future.cancel()
            self._jobs.discard(job)

    def close(self) -> None:
        """Stop what runs, drop what waits, free the runtime."""
        for job in list(self._jobs):
            job.cancelled.set()
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._runtime is not None:
            self._runtime.close()
            self._runtime = None

    def _opened(self) -> Runtime:
        if self._runtime is None:
            self._runtime = self._open()
        return self._runtime

    def _run(self, job: "_Job") -> None:
        runtime = self._opened()
        job.put(Begun(len(runtime.encode(job.prompt))))
        pieces = until_stop(runtime.generate(job.prompt, job.sampling), job.sampling.stop)
        with closing(pieces):
            for piece in pieces:
                if job.cancelled.is_set():
                    raise ExpertFailed(CLOSED)
                job.put(piece)


class LocalEngine:
    """Experts in this process, each with its `Worker`. For tests, and for use without Ray."""

    def __init__(self, runtimes: Mapping[str, OpenRuntime], queue: int = 32) -> None:
        self._workers = {name: Worker(open_runtime, queue) for name, open_runtime in runtimes.items()}

    async def stream(self, expert: str, prompt: str, sampling: Sampling) -> AsyncGenerator[Event]:
        """See `Engine.stream`."""
        if expert not in self._workers:
            raise UnknownModel(f"no expert {expert!r} here; there are: {', '.join(self._workers)}")
        async with aclosing(self._workers[expert].stream(prompt, sampling)) as events:
            async for event in events:
                yield event

    def close(self) -> None:
        """Free every runtime."""
        for worker in self._workers.values():
            worker.close()


class _Job:
    """One request: what to do, and the way back to the loop that asked."""

    def __init__(self, prompt: str, sampling: Sampling, loop: asyncio.AbstractEventLoop) -> None:
        self.prompt = prompt
        self.sampling = sampling
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.cancelled = threading.Event()
        self._loop = loop

    def put(self, event: Event | None) -> None:
        """Hand `event` over, from the worker's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)

    def end(self, _: "Future[None]") -> None:
        """Say that no more comes."""
        self.put(None)
