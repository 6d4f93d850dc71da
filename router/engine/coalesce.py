"""Quick pieces, sent as fewer and larger ones: to pass a message on costs more than its text does.

The first piece goes at once, and so does one that comes after a pause.
"""

from collections.abc import Callable
from time import monotonic

from slices.runtime import Piece

SECONDS, SLOWEST = 0.1, 0.25  # between two parcels of an answer: four a second still read as a steady stream
A_SECOND = 20  # parcels of all answers together


def spacing(answers: int) -> float:
    """Seconds between parcels of each of so many answers: every parcel takes time from all of them."""
    return min(max(SECONDS, answers / A_SECOND), SLOWEST)


class Parcels:
    """The pieces of one answer, some of them held back for the one after them."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Nothing has gone yet."""
        self._clock = clock
        self._held: Piece | None = None
        self._sent: float | None = None

    def put(self, piece: Piece, seconds: float) -> Piece | None:
        """What goes now that `piece` is there: nothing within `seconds` of the last, or all held and it."""
        self._held = piece if self._held is None else joined(self._held, piece)
        now = self._clock()
        if not piece.finish_reason and self._sent is not None and now - self._sent < seconds:
            return None
        self._sent = now
        return self.rest()

    def rest(self) -> Piece | None:
        """What is held, where no more comes."""
        found, self._held = self._held, None
        return found


def joined(one: Piece, other: Piece) -> Piece:
    """Two pieces of an answer as one."""
    told = one.logprobs + other.logprobs
    return Piece(one.text + other.text, one.tokens + other.tokens, other.finish_reason, told)
