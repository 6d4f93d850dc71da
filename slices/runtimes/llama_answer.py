"""One answer in the making: its prompt, the tokens drawn so far, and the text that may be shown of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.runtime import Piece, Sampling, TokenLogprob
from slices.runtimes.grammar import Grammar
from slices.runtimes.llama_model import LlamaModel
from slices.runtimes.sampling import choose, likeliest
from slices.runtimes.streaming import Cutter


class Answer:
    """What is known of an answer. `tokens` are prompt and answer; the first `read` of them were run."""

    def __init__(self, model: LlamaModel, prompt: Sequence[int], sampling: Sampling, room: int) -> None:
        """Begin an answer that ends where prompt and answer fill `room` tokens.

        Raises:
            Unsupported: the grammar cannot be read.
        """
        self.tokens, self.read = list(prompt), 0
        self._model, self._sampling, self._room, self._prompt = model, sampling, room, len(prompt)
        self._random: Any = np.random.default_rng(sampling.seed)
        self._cutter = Cutter(sampling.max_tokens, sampling.stop)
        self._grammar = Grammar(model, sampling.grammar) if sampling.grammar is not None else None

    @property
    def unread(self) -> int:
        """Tokens to run before the next one can be drawn."""
        return len(self.tokens) - self.read

    def go_on(self, logits: NDArray[np.float32]) -> list[Piece]:
        """Draw the next token from logits (vocabulary,); what can be shown, the last piece with an end."""
        token = self._drawn(logits)
        if self._model.ends(token):
            return [self._cutter.end("stop")]
        self.tokens.append(token)
        piece = self._cutter.push(self._model.bytes(token), self._told(logits, token))
        shown = [piece] if piece else []
        if not (piece and piece.finish) and len(self.tokens) >= self._room:
            shown.append(self._cutter.end("length"))
        return shown

    def close(self) -> None:
        """Let go of the grammar."""
        if self._grammar is not None:
            self._grammar.close()

    def _drawn(self, logits: NDArray[np.float32]) -> int:
        recent = self.tokens[self._prompt :]
        token = choose(logits, self._sampling, recent, self._random)
        if self._grammar is None:
            return token
        if not self._grammar.allows(token):
            token = choose(self._grammar.masked(logits), self._sampling, recent, self._random)
        self._grammar.accept(token)
        return token

    def _told(self, logits: NDArray[np.float32], token: int) -> TokenLogprob | None:
        if self._sampling.logprobs is None:
            return None
        own, top = likeliest(logits, token, self._sampling.logprobs)
        named = tuple((self._model.bytes(each), value) for each, value in top)
        return TokenLogprob(self._model.bytes(token), own, named)
