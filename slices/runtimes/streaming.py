"""From tokens to pieces of text: whole characters only, cut at a stop text, with a reason at the end.

Knows nothing of models: it is given the bytes of each token, and None for the token that ends an answer.
"""

import codecs
from collections.abc import Iterable, Iterator

from slices.runtime import Piece, Sampling


def pieces(tokens: Iterable[bytes | None], sampling: Sampling) -> Iterator[Piece]:
    """Turn the bytes of sampled tokens into pieces; the last one says why the answer ended.

    Held back are the bytes of an unfinished character and text that may become a stop text. A token's
    count goes to the piece that shows its text.

    Args:
        tokens: the bytes of each token, None where the model ended; endless or short, both are fine.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    held, waiting = "", 0
    finish = "length"
    for token in _at_most(tokens, sampling.max_tokens):
        if token is None:
            finish = "stop"
            break
        waiting += 1
        held += decoder.decode(token)
        at = _first_stop(held, sampling.stop)
        if at is not None:
            yield Piece(held[:at], waiting, "stop")
            return
        ready = len(held) - _stop_prefix(held, sampling.stop)
        if ready:
            yield Piece(held[:ready], waiting)
            held, waiting = held[ready:], 0
    yield Piece(held + decoder.decode(b"", final=True), waiting, finish)


def _at_most(tokens: Iterable[bytes | None], limit: int) -> Iterator[bytes | None]:
    """The first `limit` tokens, without asking for one more."""
    if limit <= 0:
        return
    for count, token in enumerate(tokens, start=1):
        yield token
        if count == limit:
            return


def _first_stop(text: str, stops: tuple[str, ...]) -> int | None:
    found = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return min(found, default=None)


def _stop_prefix(text: str, stops: tuple[str, ...]) -> int:
    """How much of the end of `text` could be the beginning of a stop text."""
    return max(
        (n for stop in stops for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n])),
        default=0,
    )
