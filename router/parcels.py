"""Quick pieces, sent as fewer and larger ones: between processes a message costs more than its text.

The first piece goes at once, and so does one that comes after a pause.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic

from router.engine import Begun, Event
from slices.runtime import Piece

SECONDS = 0.1  # between two parcels: ten a second read as a steady stream


async def parcelled(events: AsyncGenerator[Event], seconds: float = SECONDS) -> AsyncGenerator[Event]:
    """The same events, pieces that come within `seconds` of the last one joined to the one after them.

    Nothing is held for longer than the next piece takes, and nothing past the end.
    """
    held: Piece | None = None
    sent = -seconds
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Begun):
                yield event
                continue
            held = event if held is None else joined(held, event)
            if event.finish or monotonic() - sent >= seconds:
                yield held
                held, sent = None, monotonic()
    if held is not None:
        yield held


def joined(one: Piece, other: Piece) -> Piece:
    """Two pieces of an answer as one."""
    told = one.logprobs + other.logprobs
    return Piece(one.text + other.text, one.tokens + other.tokens, other.finish, told)
