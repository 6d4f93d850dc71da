"""The worker thread of a model: its slots and its queue."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from router.engine.worker import Event, GenerationStarted, LocalEngine, Worker
from router.errors import ExpertFailed, Overloaded, UnknownModel
from slices.errors import PromptTooLong, RunFailed
from slices.export import export
from slices.runtime import Batcher, Capacity, Piece, Sampling
from slices.runtimes.llama_batcher import LlamaBatcher
from slices.runtimes.llama_runtime import LlamaRuntime
from slices.runtimes.scripted import ScriptedRuntime
from slices.runtimes.single_sequence import SingleSequenceBatcher
from tests.slices.gguf_fixtures import FULL, SLIDING, write_gemma3


class Gated(ScriptedRuntime):
    """Waits before each piece until it is let go; notes what was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)
        self.freed = threading.Event()
        self.thread_ids: set[int] = set()
        self.closed = False

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        self.seen.append(prompt)
        self.thread_ids.add(threading.get_ident())
        try:
            for _ in range(sampling.max_tokens):
                assert self.gate.acquire(timeout=20)
                yield Piece("x")
            yield Piece("", 0, "length")
        finally:
            self.freed.set()

    def close(self) -> None:
        self.closed = True


async def collect(worker: Worker, prompt: str, sampling: Sampling) -> list[Event]:
    async with aclosing(worker.stream(prompt, sampling)) as events:
        return [event async for event in events]


def test_requests_run_one_after_another_in_one_thread() -> None:
    runtime = Gated()
    worker = Worker(lambda: SingleSequenceBatcher(runtime))

    async def both() -> list[list[Event]]:
        runtime.gate.release(6)
        return list(await asyncio.gather(*(collect(worker, text, Sampling(3)) for text in "ab")))

    first, second = asyncio.run(both())
    assert (
        first == [GenerationStarted(2), Piece("x"), Piece("x"), Piece("x"), Piece("", 0, "length")] == second
    )
    assert sorted(runtime.seen) == ["a", "b"]
    assert len(runtime.thread_ids) == 1 and threading.get_ident() not in runtime.thread_ids
    worker.close()
    assert runtime.closed


def test_giving_up_frees_the_expert() -> None:
    runtime = Gated()
    worker = Worker(lambda: SingleSequenceBatcher(runtime))

    async def give_up_then_ask() -> list[Event]:
        runtime.gate.release(1)
        async with aclosing(worker.stream("long", Sampling(10_000))) as events:
            assert [await anext(events), await anext(events)] == [GenerationStarted(5), Piece("x")]
        runtime.gate.release(2)  # the piece it was waiting for, and one for the next
        return await collect(worker, "next", Sampling(1))

    events = asyncio.run(asyncio.wait_for(give_up_then_ask(), 20))
    assert events[-1] == Piece("", 0, "length")
    assert runtime.freed.is_set()
    worker.close()


def test_a_full_queue_is_refused_and_a_cancelled_wait_leaves_it() -> None:
    runtime = Gated()
    worker = Worker(lambda: SingleSequenceBatcher(runtime), max_queued_requests=1)

    async def crowd() -> None:
        running = asyncio.create_task(collect(worker, "a", Sampling(1)))
        waiting = asyncio.create_task(collect(worker, "b", Sampling(1)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await collect(worker, "c", Sampling(1))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        third = asyncio.create_task(collect(worker, "d", Sampling(1)))
        runtime.gate.release(2)
        await asyncio.gather(running, third)

    asyncio.run(asyncio.wait_for(crowd(), 20))
    assert runtime.seen == ["a", "d"]
    worker.close()


class Endless(ScriptedRuntime):
    """Never stops by itself."""

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        while True:
            yield Piece("x")


def test_closing_ends_what_runs_and_what_waits() -> None:
    worker = Worker(lambda: SingleSequenceBatcher(Endless()))

    async def close_under_them() -> list[object]:
        events = worker.stream("a", Sampling())
        assert await anext(events) == GenerationStarted(2)
        running = asyncio.create_task(exhaust(events))
        waiting = asyncio.create_task(collect(worker, "b", Sampling()))
        await asyncio.sleep(0)
        await asyncio.to_thread(worker.close)
        return list(await asyncio.gather(running, waiting, return_exceptions=True))

    ends = asyncio.run(asyncio.wait_for(close_under_them(), 20))
    assert [type(end) for end in ends] == [ExpertFailed, ExpertFailed]


async def exhaust(events: AsyncGenerator[Event]) -> None:
    async with aclosing(events):
        async for _ in events:
            pass


def test_a_runtime_that_fails_says_so_and_can_be_asked_again() -> None:
    opened = []

    def flaky() -> Batcher:
        opened.append(1)
        if len(opened) == 1:
            raise RunFailed("no memory")
        return SingleSequenceBatcher(ScriptedRuntime())

    worker = Worker(flaky)
    with pytest.raises(ExpertFailed, match="no memory"):
        asyncio.run(collect(worker, "a", Sampling()))
    assert len(asyncio.run(collect(worker, "a", Sampling()))) == 4
    worker.close()


@pytest.fixture
def pico(tmp_path: Path) -> Path:
    folder = write_gemma3(tmp_path / "pico", [SLIDING, FULL])
    return export(folder, folder / "pico.gguf")


def test_answers_share_the_model_and_one_given_up_makes_place(pico: Path) -> None:
    """Five ask where there are two places: two are written at a time, and each is as if it were alone."""
    endless, short = Sampling(max_tokens=100_000, temperature=0), Sampling(max_tokens=8, temperature=0)
    worker = Worker(lambda: LlamaBatcher(pico, Capacity(max_num_seqs=2, max_model_len=2**16, threads=1)))
    worker.start()

    async def crowd() -> list[list[Event]]:
        events = worker.stream("The", endless)
        assert isinstance(await anext(events), GenerationStarted)
        await anext(events)
        answers = [asyncio.create_task(collect(worker, text, short)) for text in ("a", "b", "c", "d")]
        found = await answers[0]  # beside the endless one, which leaves one place
        await events.aclose()
        return [found, *await asyncio.gather(*answers[1:])]

    answers = asyncio.run(asyncio.wait_for(crowd(), 60))
    runtime = LlamaRuntime(pico, threads=1)
    for text, events in zip("abcd", answers, strict=True):
        assert text_of(events) == "".join(piece.text for piece in runtime.generate(text, short))
    deadline = time.monotonic() + 20  # a slot is free a step after the end of the answer was sent
    while worker.load != (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    runtime.close()
    worker.close()


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Piece))


def test_a_prompt_that_is_too_long_is_its_own_callers_error(pico: Path) -> None:
    worker = Worker(lambda: LlamaBatcher(pico, Capacity(max_num_seqs=2, max_model_len=256, threads=1)))

    async def both() -> list[object]:
        asks = (collect(worker, text, Sampling(max_tokens=4)) for text in ("a" * 3000, "b"))
        return list(await asyncio.gather(*asks, return_exceptions=True))

    refused, answered = asyncio.run(both())
    assert isinstance(refused, PromptTooLong) and isinstance(answered, list)
    worker.close()
    with pytest.raises(ExpertFailed):
        asyncio.run(collect(worker, "late", Sampling()))


def test_an_unknown_expert() -> None:
    async def ask() -> None:
        await anext(LocalEngine({}).stream("x", "a", Sampling()))

    with pytest.raises(UnknownModel):
        asyncio.run(ask())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_a_model_runs_below_what_passes_its_answers_on() -> None:
    found: list[int] = []

    def opened() -> Batcher:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return SingleSequenceBatcher(ScriptedRuntime())

    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    for nice in (0, 3):
        worker = Worker(opened, nice=nice)
        worker.start()
        worker.close()
    assert found == [mine, mine + 3]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == mine
