"""Pieces that come quickly travel together; none is late for it, and none is lost."""

import asyncio
from collections.abc import AsyncGenerator

from router.engine import Begun, Event
from router.parcels import parcelled
from slices.runtime import Piece, TokenLogprob

QUICK = [Begun(3), *(Piece(letter, 1, logprobs=(TokenLogprob(letter.encode(), -1.0),)) for letter in "abcd")]
END = Piece("", 0, "stop")


async def events(said: list[Event | float]) -> AsyncGenerator[Event]:
    """Events, and seconds of waiting between them."""
    for each in said:
        if isinstance(each, float):
            await asyncio.sleep(each)
        else:
            yield each


def sent(said: list[Event | float], seconds: float) -> list[Event]:
    async def gathered() -> list[Event]:
        return [each async for each in parcelled(events(said), seconds)]

    return asyncio.run(gathered())


def test_the_first_piece_goes_at_once_and_the_quick_ones_after_it_together() -> None:
    begun, first, rest = sent([*QUICK, END], 3600.0)
    assert (begun, first) == (QUICK[0], QUICK[1])
    assert isinstance(rest, Piece)
    assert (rest.text, rest.tokens, rest.finish) == ("bcd", 3, "stop")
    assert [told.token for told in rest.logprobs] == [b"b", b"c", b"d"]


def test_a_piece_after_a_pause_takes_what_was_held_with_it() -> None:
    found = sent([*QUICK, 0.02, Piece("e"), END], 0.01)
    assert [each.text for each in found if isinstance(each, Piece)] == ["a", "bcde", ""]


def test_nothing_is_lost_where_the_end_does_not_come() -> None:
    assert "".join(each.text for each in sent([*QUICK], 3600.0) if isinstance(each, Piece)) == "abcd"


def test_every_piece_goes_at_once_where_no_time_is_given() -> None:
    assert sent([*QUICK, END], 0.0) == [*QUICK, END]
