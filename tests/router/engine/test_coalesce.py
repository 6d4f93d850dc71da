"""Coalescing of pieces: the first is sent at once, quick ones together, and none is lost."""

import asyncio
from collections.abc import Iterable
from functools import partial

from router.engine.coalesce import Coalescer, chunk_interval
from router.engine.worker import Event, Worker
from slices.runtime import Piece, Sampling, TokenLogprob
from slices.runtimes.scripted import ScriptedRuntime
from slices.runtimes.single_sequence import SingleSequenceBatcher

QUICK = [Piece(letter, 1, logprobs=(TokenLogprob(letter.encode(), -1.0),)) for letter in "abcd"]
END = Piece("", 0, "stop")


def sent(pieces: Iterable[tuple[float, Piece]], interval: float) -> list[Piece]:
    """The chunks sent of pieces that come at these times."""
    now = 0.0
    coalescer, found = Coalescer(lambda: now), list[Piece | None]()
    for now, piece in pieces:  # noqa: B007 - the clock reads it
        found.append(coalescer.add(piece, interval))
    found.append(coalescer.flush())
    return [each for each in found if each is not None]


def test_the_first_piece_goes_at_once_and_the_quick_ones_after_it_together() -> None:
    first, rest = sent([(0.0, each) for each in (*QUICK, END)], 3600.0)
    assert first == QUICK[0]
    assert (rest.text, rest.tokens, rest.finish_reason) == ("bcd", 3, "stop")
    assert [each.token for each in rest.logprobs] == [b"b", b"c", b"d"]


def test_a_piece_after_a_pause_takes_what_was_held_with_it() -> None:
    found = sent([*((0.0, each) for each in QUICK), (0.02, Piece("e")), (0.021, END)], 0.01)
    assert [each.text for each in found] == ["a", "bcde", ""]


def test_nothing_is_lost_where_the_end_does_not_come() -> None:
    assert "".join(each.text for each in sent([(0.0, each) for each in QUICK], 3600.0)) == "abcd"


def test_every_piece_goes_at_once_where_no_time_is_given() -> None:
    assert sent([(0.0, each) for each in (*QUICK, END)], 0.0) == [*QUICK, END]


def test_many_answers_at_a_time_send_no_more_than_a_few_chunks() -> None:
    assert [chunk_interval(running) for running in (1, 2, 4, 100)] == [0.1, 0.1, 0.2, 0.25]


def test_a_worker_coalesces() -> None:
    """The first word is a chunk, and all others with the end are another."""
    script = ScriptedRuntime(default="one two three four five")
    worker = Worker(partial(SingleSequenceBatcher, script), chunk_interval=lambda running: 3600.0 * running)

    async def collect() -> list[Event]:
        return [each async for each in worker.stream("hi", Sampling(max_tokens=100))]

    _, first, rest = asyncio.run(collect())
    worker.close()
    assert isinstance(first, Piece) and isinstance(rest, Piece)
    assert (first.text + rest.text, rest.finish_reason) == ("one two three four five", "stop")
