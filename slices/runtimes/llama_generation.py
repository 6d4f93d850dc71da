"""The state of one generation: prompt and sampled tokens, grammar, and the text that may be streamed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.runtime import Piece, Sampling, TokenLogprob
from slices.runtimes.detokenizer import Detokenizer
from slices.runtimes.grammar import Grammar
from slices.runtimes.llama_model import LlamaModel
from slices.runtimes.sampling import sample_token, top_logprobs


class Generation:
    """A generation; `tokens` are prompt and answer, the first `n_past` of them are in the KV cache."""

    def __init__(self, model: LlamaModel, prompt: Sequence[int], sampling: Sampling, n_ctx: int) -> None:
        """Begin a generation that ends where prompt and answer have `n_ctx` tokens.

        Raises:
            Unsupported: the grammar cannot be read.
        """
        self.tokens, self.n_past = list(prompt), 0
        self._model, self._sampling, self._n_ctx, self._n_prompt = model, sampling, n_ctx, len(prompt)
        self._random: Any = np.random.default_rng(sampling.seed)
        self._detokenizer = Detokenizer(sampling.max_tokens, sampling.stop)
        self._grammar = Grammar(model, sampling.grammar) if sampling.grammar is not None else None

    @property
    def n_pending(self) -> int:
        """Tokens to decode before the next one can be sampled."""
        return len(self.tokens) - self.n_past

    def advance(self, logits: NDArray[np.float32]) -> list[Piece]:
        """Sample the next token from logits (vocabulary,); the pieces that can be streamed."""
        token = self._sample(logits)
        if self._model.is_eog(token):
            return [self._detokenizer.end("stop")]
        self.tokens.append(token)
        piece = self._detokenizer.push(self._model.token_bytes(token), self._logprob(logits, token))
        pieces = [piece] if piece else []
        if not (piece and piece.finish_reason) and len(self.tokens) >= self._n_ctx:
            pieces.append(self._detokenizer.end("length"))
        return pieces

    def close(self) -> None:
        """Free the grammar."""
        if self._grammar is not None:
            self._grammar.close()

    def _sample(self, logits: NDArray[np.float32]) -> int:
        recent = self.tokens[self._n_prompt :]
        token = sample_token(logits, self._sampling, recent, self._random)
        if self._grammar is None:
            return token
        if not self._grammar.allows(token):
            token = sample_token(self._grammar.masked(logits), self._sampling, recent, self._random)
        self._grammar.accept(token)
        return token

    def _logprob(self, logits: NDArray[np.float32], token: int) -> TokenLogprob | None:
        if self._sampling.logprobs is None:
            return None
        logprob, top = top_logprobs(logits, token, self._sampling.logprobs)
        top_bytes = tuple((self._model.token_bytes(each), value) for each, value in top)
        return TokenLogprob(self._model.token_bytes(token), logprob, top_bytes)
