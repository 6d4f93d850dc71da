"""Asynchronous generation from a blocking model: one thread per model, continuous batching over its slots.

A model blocks and belongs to one caller, so each gets a thread that nothing else runs on. Requests beyond its
slots wait in a queue. Closing the iterator of an answer frees its slot before the next token.
Nothing here knows of HTTP, chat or Ray; `router.engine.ray_replica` runs one `Worker` in each replica.
"""

import asyncio
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from router.engine.coalesce import Coalescer
from router.errors import ExpertFailed, Overloaded, RouterError, UnknownModel
from slices.errors import PromptTooLong, RunFailed, SliceError
from slices.runtime import Batcher, Piece, Sampling

_log = logging.getLogger(__name__)
SHUT_DOWN = "the expert was shut down while it answered"


@dataclass(frozen=True)
class GenerationStarted:
    """The first event of a stream: the tokens of the prompt, and those found in its slot's KV cache."""

    prompt_tokens: int
    cached_tokens: int = 0


Event: TypeAlias = GenerationStarted | Piece
OpenBatcher: TypeAlias = Callable[[], Batcher]


class Engine(Protocol):
    """Generation by expert name."""

    def stream(self, expert: str, prompt: str, sampling: Sampling) -> AsyncGenerator[Event]:
        """`GenerationStarted`, then pieces; the last one has a `finish_reason`. Closing it frees the slot.

        Raises:
            UnknownModel, Overloaded, ExpertFailed: no such expert, its queue is full, or it failed.
        """
        ...


class Worker:
    """One model in a thread of its own, opened by the first request."""

    def __init__(
        self,
        open_batcher: OpenBatcher,
        max_queued_requests: int = 32,
        nice: int = 0,
        chunk_interval: Callable[[int], float] = lambda running: 0.0,
    ) -> None:
        """Create the thread; the model is not opened yet.

        Args:
            nice: by how much the priority of the model's thread is lowered; Linux alone.
            chunk_interval: seconds between two chunks of an answer, by the number of running requests; see
                `router.engine.coalesce`.
        """
        self._open, self._max_queued, self._chunk_interval = open_batcher, max_queued_requests, chunk_interval
        self._thread = ThreadPoolExecutor(1, "expert", initializer=_lower_priority, initargs=(nice,))
        self._batcher: Batcher | None = None
        self._lock = threading.Lock()  # over the three below
        self._waiting: deque[_Request] = deque()
        self._looping = self._closed = False
        self._running: dict[int, _Request] = {}  # by slot

    @property
    def load(self) -> tuple[int, int]:
        """Numbers of running and of queued requests."""
        return len(self._running), len(self._waiting)

    def start(self) -> None:
        """Open the model now, and wait for it. Raises what opening it raises."""
        self._thread.submit(self._opened).result()

    async def stream(self, prompt: str, sampling: Sampling) -> AsyncGenerator[Event]:
        """See `Engine.stream`. Raises `Overloaded` if `max_queued_requests` are waiting already."""
        request = _Request(prompt, sampling, asyncio.get_running_loop())
        self._enqueue(request)
        try:
            while (event := await request.events.get()) is not None:
                yield event
            if request.error is not None:
                raise _public_error(request.error)
        finally:
            request.cancelled.set()
            with self._lock:
                if request in self._waiting:
                    self._waiting.remove(request)

    def close(self) -> None:
        """Stop the running requests, drop the queued ones, free the model."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
        for request in waiting:
            request.end(ExpertFailed(SHUT_DOWN))
        self._thread.shutdown(wait=True)
        if self._batcher is not None:
            self._batcher.close()
            self._batcher = None

    def _enqueue(self, request: "_Request") -> None:
        slots = self._batcher.max_num_seqs if self._batcher else 1
        with self._lock:
            ahead = len(self._waiting) + len(self._running)
            if self._closed:
                raise ExpertFailed(SHUT_DOWN)
            if ahead >= slots + self._max_queued:
                raise Overloaded(f"{ahead} requests are here already; try again later")
            self._waiting.append(request)
            if not self._looping:
                self._looping = True
                self._thread.submit(self._loop)

    def _opened(self) -> Batcher:
        if self._batcher is None:
            self._batcher = self._open()
        return self._batcher

    def _loop(self) -> None:
        """Iterate in the model's thread until no request is left."""
        while self._iterate():
            pass

    def _iterate(self) -> bool:
        """Start queued requests in free slots, drop cancelled ones, and decode one step of the others."""
        while (request := self._next_waiting()) is not None:
            self._begin(request)
        for slot, request in list(self._running.items()):
            if self._closed or request.cancelled.is_set():
                self._opened().abort(slot)
                self._finish(slot, ExpertFailed(SHUT_DOWN))
        if self._running:
            self._step(self._opened())
        with self._lock:
            self._looping = bool(self._running or self._waiting)
            return self._looping

    def _next_waiting(self) -> "_Request | None":
        slots = self._batcher.max_num_seqs if self._batcher else 1
        with self._lock:
            return self._waiting.popleft() if self._waiting and len(self._running) < slots else None

    def _begin(self, request: "_Request") -> None:
        try:
            slot = self._opened().begin(request.prompt, request.sampling)
        except Exception as error:  # noqa: BLE001 - handed to the caller; the thread goes on
            request.end(error)
            return
        self._running[slot.id] = request
        request.emit(GenerationStarted(slot.prompt_tokens, slot.cached_tokens))

    def _step(self, batcher: Batcher) -> None:
        try:
            pieces = batcher.step()
        except Exception as error:  # noqa: BLE001 - as above: every running request fails
            for slot in list(self._running):
                batcher.abort(slot)
                self._finish(slot, error)
            return
        interval = self._chunk_interval(len(self._running))
        for slot, piece in pieces:
            self._running[slot].add(piece, interval)
            if piece.finish_reason:
                self._finish(slot)

    def _finish(self, slot: int, error: Exception | None = None) -> None:
        self._running.pop(slot).end(error)


def _lower_priority(nice: int) -> None:
    """Raise the nice value of this thread and of those that it starts: on Linux each thread has its own."""
    if sys.platform == "linux" and nice:
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + nice)


def _public_error(error: Exception) -> Exception:
    """The error as the caller gets it; of an unexpected one only its class."""
    if isinstance(error, RunFailed) and not isinstance(error, PromptTooLong):
        return ExpertFailed(str(error))
    if isinstance(error, RouterError | SliceError):
        return error
    _log.error("an expert failed", exc_info=error)
    return ExpertFailed(f"the expert failed: {type(error).__name__}")


class LocalEngine:
    """Experts in this process, each with its `Worker`. For tests, and for use without Ray."""

    def __init__(self, batchers: Mapping[str, OpenBatcher], max_queued_requests: int = 32) -> None:
        self._workers = {name: Worker(batcher, max_queued_requests) for name, batcher in batchers.items()}

    def stream(self, expert: str, prompt: str, sampling: Sampling) -> AsyncGenerator[Event]:
        """See `Engine.stream`."""
        if expert not in self._workers:
            raise UnknownModel(f"no expert {expert!r} here; there are: {', '.join(self._workers)}")
        return self._workers[expert].stream(prompt, sampling)

    def close(self) -> None:
        """Free every model."""
        for worker in self._workers.values():
            worker.close()


class _Request:
    """A queued or running request, and the way back to the event loop that made it."""

    def __init__(self, prompt: str, sampling: Sampling, loop: asyncio.AbstractEventLoop) -> None:
        self.prompt, self.sampling = prompt, sampling
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.cancelled = threading.Event()
        self.error: Exception | None = None
        self._event_loop, self._coalescer = loop, Coalescer()

    def add(self, piece: Piece, interval: float) -> None:
        """Send a piece from the model's thread, now or within a later chunk."""
        if (chunk := self._coalescer.add(piece, interval)) is not None:
            self.emit(chunk)

    def emit(self, event: Event | None) -> None:
        """Send `event` at once."""
        if not self._event_loop.is_closed():
            self._event_loop.call_soon_threadsafe(self.events.put_nowait, event)

    def end(self, error: Exception | None = None) -> None:
        """Send what is buffered, then the end of the stream; `error` is raised there."""
        self.error = error
        if (chunk := self._coalescer.flush()) is not None:
            self.emit(chunk)
        self.emit(None)
