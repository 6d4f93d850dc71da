"""The thread behind each expert, and stop strings over piece boundaries."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.engine import Begun, Event, LocalEngine, Worker
from router.errors import ExpertFailed, Overloaded, UnknownModel
from router.stops import until_stop
from slices.errors import RunFailed
from slices.runtime import Piece, Runtime, Sampling, ScriptedRuntime


@given(
    st.lists(st.text("ab\n", max_size=4), max_size=12),
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
    st.sampled_from(["stop", "length"]),
)
def test_stops_cut_as_if_the_text_came_at_once(texts: list[str], stops: list[str], finish: str) -> None:
    pieces = [*(Piece(text) for text in texts), Piece("", 0, finish)]
    said = list(until_stop(iter(pieces), stops))
    full = "".join(texts)
    cuts = [full.find(stop) for stop in stops if stop in full]
    assert "".join(piece.text for piece in said) == (full[: min(cuts)] if cuts else full)
    assert [piece.finish for piece in said[:-1]] == [None] * (len(said) - 1)
    assert said[-1].finish == ("stop" if cuts else finish)
    if not cuts:
        assert sum(piece.tokens for piece in said) == len(texts)


def test_what_cannot_be_a_stop_is_not_held_back() -> None:
    said = until_stop(iter([Piece("one\n"), Piece("two"), Piece("", 0, "stop")]), ["\nQuestion:"])
    assert next(said).text == "one"
    assert next(said).text == "\ntwo"


def test_a_stop_closes_the_run() -> None:
    closed = []

    def endless() -> Iterator[Piece]:
        try:
            while True:
                yield Piece("x")
        finally:
            closed.append(True)

    assert "".join(piece.text for piece in until_stop(endless(), ["xxx"])) == ""
    assert closed == [True]


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
    worker = Worker(lambda: runtime)

    async def both() -> list[list[Event]]:
        runtime.gate.release(6)
        return list(await asyncio.gather(*(collect(worker, text, Sampling(3)) for text in "ab")))

    first, second = asyncio.run(both())
    assert first == [Begun(2), Piece("x"), Piece("x"), Piece("x"), Piece("", 0, "length")] == second
    assert sorted(runtime.seen) == ["a", "b"]
    assert len(runtime.thread_ids) == 1 and threading.get_ident() not in runtime.thread_ids
    worker.close()
    assert runtime.closed


def test_giving_up_frees_the_expert() -> None:
    runtime = Gated()
    worker = Worker(lambda: runtime)

    async def give_up_then_ask() -> list[Event]:
        runtime.gate.release(1)
        async with aclosing(worker.stream("long", Sampling(10_000))) as events:
            assert [await anext(events), await anext(events)] == [Begun(5), Piece("x")]
        runtime.gate.release(2)  # the piece it was waiting for, and one for the next
        return await collect(worker, "next", Sampling(1))

    said = asyncio.run(asyncio.wait_for(give_up_then_ask(), 20))
    assert said[-1] == Piece("", 0, "length")
    assert runtime.freed.is_set()
    worker.close()


def test_a_full_queue_is_refused_and_a_cancelled_wait_leaves_it() -> None:
    runtime = Gated()
    worker = Worker(lambda: runtime, queue=1)

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
    worker = Worker(Endless)

    async def close_under_them() -> list[object]:
        events = worker.stream("a", Sampling())
        assert await anext(events) == Begun(2)
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

    def flaky() -> Runtime:
        opened.append(1)
        if len(opened) == 1:
            raise RunFailed("no memory")
        return ScriptedRuntime()

    worker = Worker(flaky)
    with pytest.raises(RunFailed, match="no memory"):
        asyncio.run(collect(worker, "a", Sampling()))
    assert len(asyncio.run(collect(worker, "a", Sampling()))) == 4
    worker.close()


def test_an_unknown_expert() -> None:
    async def ask() -> None:
        await anext(LocalEngine({}).stream("x", "a", Sampling()))

    with pytest.raises(UnknownModel):
        asyncio.run(ask())
