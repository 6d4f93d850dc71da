"""Asking a model from async code: one thread a model, as many answers at a time as it has slots.

A model blocks and belongs to one caller, so each gets a thread that nothing else runs on. Who finds no
free slot waits in line. Giving up an answer (closing its iterator) frees its slot before the next token.
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
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from router.engine.coalesce import Parcels
from router.errors import ExpertFailed, Overloaded, RouterError, UnknownModel
from slices.errors import PromptTooLong, RunFailed, SliceError
from slices.runtime import Batcher, Piece, Sampling

_log = logging.getLogger(__name__)
CLOSED = "the expert was shut down while it answered"


@dataclass(frozen=True)
class Begun:
    """What an engine yields first: the model is at work on a prompt of so many tokens."""

    prompt_tokens: int
    reused: int = 0  # of them, in the KV cache of the slot already


Event: TypeAlias = Begun | Piece
OpenBatcher: TypeAlias = Callable[[], Batcher]


class Engine(Protocol):
    """Runs experts by name."""

    def stream(self, expert: str, prompt: str, sampling: Sampling) -> AsyncGenerator[Event]:
        """`Begun`, then pieces; the last one has a `finish`. Closing it frees the expert.

        Raises:
            UnknownModel, Overloaded, ExpertFailed: no such expert, too many wait, or it gave up.
        """
        ...


class Worker:
    """One model in a thread of its own, opened when first asked."""

    def __init__(
        self,
        open_batcher: OpenBatcher,
        queue: int = 32,
        nice: int = 0,
        spacing: Callable[[int], float] = lambda answers: 0.0,
    ) -> None:
        """Nothing is opened yet.

        Args:
            nice: how far the priority of what computes is below that of what passes answers on; Linux alone.
            spacing: within how many seconds pieces are sent as one, by the answers at a time; see
                `router.engine.coalesce`.
        """
        self._open, self._queue, self._spacing = open_batcher, queue, spacing
        self._thread = ThreadPoolExecutor(1, "expert", initializer=_step_back, initargs=(nice,))
        self._batcher: Batcher | None = None
        self._lock = threading.Lock()  # over the three below
        self._waiting: deque[_Job] = deque()
        self._at_work = self._closed = False
        self._slots: dict[int, _Job] = {}  # by slot id

    @property
    def load(self) -> tuple[int, int]:
        """Answers that are being written, and those that wait."""
        return len(self._slots), len(self._waiting)

    def start(self) -> None:
        """Open the model now, and wait for it. Raises what opening it raises."""
        self._thread.submit(self._opened).result()

    async def stream(self, prompt: str, sampling: Sampling) -> AsyncGenerator[Event]:
        """`Begun`, then pieces. Raises `Overloaded` if `queue` others wait already."""
        job = _Job(prompt, sampling, asyncio.get_running_loop())
        self._enter(job)
        try:
            while (event := await job.events.get()) is not None:
                yield event
            if job.error is not None:
                raise _told(job.error)
        finally:
            job.cancelled.set()
            with self._lock:
                if job in self._waiting:
                    self._waiting.remove(job)

    def close(self) -> None:
        """Stop what runs, drop what waits, free the model."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
        for job in waiting:
            job.end(ExpertFailed(CLOSED))
        self._thread.shutdown(wait=True)
        if self._batcher is not None:
            self._batcher.close()
            self._batcher = None

    def _enter(self, job: "_Job") -> None:
        max_num_seqs = self._batcher.max_num_seqs if self._batcher else 1
        with self._lock:
            ahead = len(self._waiting) + len(self._slots)
            if self._closed:
                raise ExpertFailed(CLOSED)
            if ahead >= max_num_seqs + self._queue:
                raise Overloaded(f"{ahead} requests are here already; try again later")
            self._waiting.append(job)
            if not self._at_work:
                self._at_work = True
                self._thread.submit(self._work)

    def _opened(self) -> Batcher:
        if self._batcher is None:
            self._batcher = self._open()
        return self._batcher

    def _work(self) -> None:
        """Turn after turn, in the model's thread, until nobody is left."""
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Let in who waits while there are free slots, let go who gave up, and go on with the others."""
        while (job := self._next()) is not None:
            self._start(job)
        for slot, job in list(self._slots.items()):
            if self._closed or job.cancelled.is_set():
                self._opened().abort(slot)
                self._leave(slot, ExpertFailed(CLOSED))
        if self._slots:
            self._step(self._opened())
        with self._lock:
            self._at_work = bool(self._slots or self._waiting)
            return self._at_work

    def _next(self) -> "_Job | None":
        max_num_seqs = self._batcher.max_num_seqs if self._batcher else 1
        with self._lock:
            return self._waiting.popleft() if self._waiting and len(self._slots) < max_num_seqs else None

    def _start(self, job: "_Job") -> None:
        try:
            slot = self._opened().begin(job.prompt, job.sampling)
        except Exception as error:  # noqa: BLE001 - the caller's to judge; the thread goes on
            job.end(error)
            return
        self._slots[slot.id] = job
        job.tell(Begun(slot.prompt_tokens, slot.cached_tokens))

    def _step(self, batcher: Batcher) -> None:
        try:
            pieces = batcher.step()
        except Exception as error:  # noqa: BLE001 - as above: every answer under way is lost
            for slot in list(self._slots):
                batcher.abort(slot)
                self._leave(slot, error)
            return
        seconds = self._spacing(len(self._slots))
        for slot, piece in pieces:
            self._slots[slot].put(piece, seconds)
            if piece.finish_reason:
                self._leave(slot)

    def _leave(self, slot: int, error: Exception | None = None) -> None:
        self._slots.pop(slot).end(error)


def _step_back(nice: int) -> None:
    """Lower the priority of this thread, and of those that it starts: there each thread has its own."""
    if sys.platform == "linux" and nice:
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + nice)


def _told(error: Exception) -> Exception:
    """The error as the caller gets it: no more than its kind, of what nobody foresaw."""
    if isinstance(error, RunFailed) and not isinstance(error, PromptTooLong):
        return ExpertFailed(str(error))
    if isinstance(error, RouterError | SliceError):
        return error
    _log.error("an expert failed", exc_info=error)
    return ExpertFailed(f"the expert failed: {type(error).__name__}")


class LocalEngine:
    """Experts in this process, each with its `Worker`. For tests, and for use without Ray."""

    def __init__(self, batchers: Mapping[str, OpenBatcher], queue: int = 32) -> None:
        self._workers = {name: Worker(open_batcher, queue) for name, open_batcher in batchers.items()}

    async def stream(self, expert: str, prompt: str, sampling: Sampling) -> AsyncGenerator[Event]:
        """See `Engine.stream`."""
        if expert not in self._workers:
            raise UnknownModel(f"no expert {expert!r} here; there are: {', '.join(self._workers)}")
        async with aclosing(self._workers[expert].stream(prompt, sampling)) as events:
            async for event in events:
                yield event

    def close(self) -> None:
        """Free every model."""
        for worker in self._workers.values():
            worker.close()


class _Job:
    """One request: what to do, and the way back to the loop that asked."""

    def __init__(self, prompt: str, sampling: Sampling, loop: asyncio.AbstractEventLoop) -> None:
        self.prompt, self.sampling = prompt, sampling
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.cancelled = threading.Event()
        self.error: Exception | None = None
        self._loop, self._parcels = loop, Parcels()

    def put(self, piece: Piece, seconds: float) -> None:
        """Hand a piece over, from the model's thread, now or with the next one."""
        if (parcel := self._parcels.put(piece, seconds)) is not None:
            self.tell(parcel)

    def tell(self, event: Event | None) -> None:
        """Hand `event` over at once."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)

    def end(self, error: Exception | None = None) -> None:
        """Say that no more comes, and why."""
        self.error = error
        if (rest := self._parcels.rest()) is not None:
            self.tell(rest)
        self.tell(None)
