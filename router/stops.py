"""Cutting a stream of pieces at a stop string, also where it spans several pieces.

Pure: an iterator in, an iterator out. A tail that may be the beginning of a stop string is held back
until it is sure not to be one. Closing the outer iterator closes the inner one.
"""

from collections.abc import Generator, Iterator, Sequence

from slices.runtime import Piece


def until_stop(pieces: Iterator[Piece], stops: Sequence[str]) -> Generator[Piece]:
    """The pieces up to the first stop string, which is left out; the last piece has a `finish`.

    Tokens are counted where they arrive, so the last piece may carry those of text that was cut.
    """
    held, tokens, finish = "", 0, "stop"
    try:
        for piece in pieces:
            held, tokens = held + piece.text, tokens + piece.tokens
            cut = first_stop(held, stops)
            if cut is not None:
                yield Piece(held[:cut], tokens, "stop")
                return
            if piece.finish is not None:
                finish = piece.finish
                break
            sure = len(held) - longest_beginning(held, stops)
            if sure > 0:
                yield Piece(held[:sure], tokens)
                held, tokens = held[sure:], 0
        yield Piece(held, tokens, finish)
    finally:
        if isinstance(pieces, Generator):
            pieces.close()


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the earliest stop string in `text` begins, or None."""
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return min(found, default=None)


def longest_beginning(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a stop string."""
    longest = max((len(stop) for stop in stops), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-size:]) for stop in stops):
            return size
    return 0
