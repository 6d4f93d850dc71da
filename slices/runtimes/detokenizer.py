"""Incremental detokenization: tokens to streamed text, whole characters only, ended by stop sequences.

Knows nothing of models: it is given the bytes of each token, and None for the token that ends an answer.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence

from slices.runtime import Piece, Sampling, TokenLogprob


class Detokenizer:
    """An incremental detokenizer of one answer; the last piece has the finish reason.

    Held back are the bytes of an unfinished character and text that may become a stop sequence. A token
    counts to the piece that has its text.
    """

    def __init__(self, limit: int, stops: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops, self._left = tuple(stop for stop in stops if stop), limit
        self._held, self._waiting = "", 0
        self._logprobs: list[TokenLogprob] = []

    def push(self, token: bytes | None, logprob: TokenLogprob | None = None) -> Piece | None:
        """Take the next token, None for the one that ends the answer. None where nothing can be shown yet."""
        if token is None:
            return self.end("stop")
        self._left -= 1
        self._waiting += 1
        self._held += self._decoder.decode(token)
        self._logprobs += [logprob] if logprob else []
        at = first_stop(self._held, self._stops)
        if at is not None:
            return self._show(at, "stop")
        if self._left <= 0:
            return self.end("length")
        ready = len(self._held) - _stop_prefix(self._held, self._stops)
        return self._show(ready) if ready else None

    def end(self, finish_reason: str = "length") -> Piece:
        """All that is held back, as the last piece."""
        self._held += self._decoder.decode(b"", final=True)
        at = first_stop(self._held, self._stops)
        return self._show(len(self._held) if at is None else at, finish_reason if at is None else "stop")

    def _show(self, count: int, finish_reason: str | None = None) -> Piece:
        piece = Piece(
            text=self._held[:count],
            tokens=self._waiting,
            finish_reason=finish_reason,
            logprobs=tuple(self._logprobs),
        )
        self._held, self._waiting, self._logprobs = self._held[count:], 0, []
        return piece


def detokenize(tokens: Iterable[bytes | None], sampling: Sampling) -> Iterator[Piece]:
    """The pieces of an answer from the bytes of its tokens; takes no token more than it needs.

    Args:
        tokens: the bytes of each token, None where the model ended; endless or short, both are fine.
    """
    detokenizer = Detokenizer(sampling.max_tokens, sampling.stop)
    if sampling.max_tokens > 0:
        for token in tokens:
            piece = detokenizer.push(token)
            if piece is not None:
                yield piece
            if piece is not None and piece.finish_reason:
                return
    yield detokenizer.end()


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the earliest stop sequence begins, None without one."""
    found = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return min(found, default=None)


def _stop_prefix(text: str, stops: Sequence[str]) -> int:
    """How much of the end of `text` could be the beginning of a stop sequence."""
    return max(
        (n for stop in stops for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n])),
        default=0,
    )
