"""Coalescing of token pieces into larger chunks: passing a message on costs more than its text.

The first piece is sent at once, and so is one that comes after a pause.
"""

from collections.abc import Callable
from time import monotonic

from slices.runtime import Piece

MIN_INTERVAL, MAX_INTERVAL = 0.1, 0.25  # seconds between chunks: four a second still read as a steady stream
CHUNKS_PER_SECOND = 20  # of all running requests together


def chunk_interval(running: int) -> float:
    """Seconds between two chunks of each of `running` requests: every chunk takes time from all of them."""
    return min(max(MIN_INTERVAL, running / CHUNKS_PER_SECOND), MAX_INTERVAL)


class Coalescer:
    """A buffer that joins the pieces of one answer into chunks at a minimum interval."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Start empty; the first piece is sent at once."""
        self._clock = clock
        self._buffer: Piece | None = None
        self._last_sent: float | None = None

    def add(self, piece: Piece, interval: float) -> Piece | None:
        """The chunk to send now: None within `interval` seconds of the last one, unless `piece` is final."""
        self._buffer = piece if self._buffer is None else concatenate(self._buffer, piece)
        now = self._clock()
        if not piece.finish_reason and self._last_sent is not None and now - self._last_sent < interval:
            return None
        self._last_sent = now
        return self.flush()

    def flush(self) -> Piece | None:
        """Empty the buffer and return what it held, if anything."""
        chunk, self._buffer = self._buffer, None
        return chunk


def concatenate(first: Piece, second: Piece) -> Piece:
    """Two consecutive pieces of an answer as one."""
    return Piece(
        text=first.text + second.text,
        tokens=first.tokens + second.tokens,
        finish_reason=second.finish_reason,
        logprobs=first.logprobs + second.logprobs,
    )
