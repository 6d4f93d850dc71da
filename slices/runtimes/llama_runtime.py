"""A GGUF file run by llama.cpp through its low-level API, one sequence at a time: for evaluation.

Low-level, because the high-level class keeps the logits of a whole context: 537 MB for 512 positions of
a vocabulary of 262 thousand. Here they are read a chunk at a time. Batched
serving is in `slices.runtimes.llama_batcher`.
"""

from collections.abc import Iterator, Sequence
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.errors import RunFailed
from slices.runtime import Piece, Sampling
from slices.runtimes.detokenizer import detokenize
from slices.runtimes.llama_library import last_error
from slices.runtimes.llama_model import LlamaModel
from slices.runtimes.sampling import sample_token
from slices.runtimes.softmax import log_softmax, log_softmax_at

_CHUNK_LOGITS = 2**24  # float32 logits in memory at once: 64 MB


class LlamaRuntime:
    """A model in llama.cpp with one sequence. Not thread-safe; a `slices.runtime.Runtime`."""

    def __init__(self, path: Path, threads: int | None = None, n_ctx: int = 4096) -> None:
        """Load `path`.

        Args:
            threads: processor threads; by default every core.
            n_ctx: most tokens of a prompt and its answer together.

        Raises:
            MissingExtra: llama-cpp-python is not installed.
            RunFailed: llama.cpp refuses the file.
        """
        self._context: Any = None
        self.model = LlamaModel(path)
        self._cpp = self.model.cpp
        self._chunk = max(16, min(512, _CHUNK_LOGITS // self.model.n_vocab))
        self._threads = threads or cpu_count() or 1
        try:
            self._context = self.model.new_context(self._params(n_ctx))
        except RunFailed:
            self.close()
            raise
        self._n_ctx = int(self._cpp.llama_n_ctx(self._context))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` after a bos; control tokens in it are read as text."""
        return self.model.tokenize(text, control=False)

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Natural-log probability of tokens[1:], each given all before it. Shape (len(tokens) - 1,)."""
        targets = np.asarray(tokens[1:], dtype=np.int64)
        found = np.empty(len(targets), dtype=np.float64)
        for start, logits in self._scored(tokens):
            stop = start + len(logits)
            found[start:stop] = log_softmax_at(logits, targets[start:stop])
        return found

    def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Log probabilities of every next token, in chunks of shape (positions, vocabulary)."""
        for _, logits in self._scored(tokens):
            yield log_softmax(logits)

    def expected_counts(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Sum of the next token's distribution over all positions of `tokens`. Shape (vocabulary,)."""
        total = np.zeros(self.model.n_vocab, dtype=np.float64)
        self._clear_kv_cache()
        for start in range(0, len(tokens), self._chunk):
            for logits in self._decode(tokens[start : start + self._chunk], start, every=True):
                weights = np.exp(logits - logits.max())
                total += weights / weights.sum(dtype=np.float64)
        return total

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        """Continue `prompt`, whose control tokens count as such. Closing the iterator stops the run."""
        return detokenize(self._sample(self.model.tokenize_prompt(prompt, self._n_ctx), sampling), sampling)

    def close(self) -> None:
        """Free the model; calling it twice is fine."""
        if self._context is not None:
            self._cpp.llama_free(self._context)
            self._context = None
        self.model.close()

    def _params(self, n_ctx: int) -> Any:
        params = self.model.context_params(n_ctx, self._threads)
        params.n_outputs_max = self._chunk
        params.n_outputs_max_per_seq = self._chunk
        return params

    def _scored(self, tokens: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Where each chunk of tokens[:-1] starts, and the logits (positions, vocabulary) after its tokens.

        The last token is run too where there is room, as llama-perplexity does: llama.cpp's attention sums
        otherwise in a chunk of fewer than 64 tokens, which a window of 512 would end in.
        """
        run = tokens[: max(len(tokens) - 1, self._n_ctx)]
        self._clear_kv_cache()
        for start in range(0, len(tokens) - 1, self._chunk):
            logits = self._decode(run[start : start + self._chunk], start, every=True)
            yield start, logits[: len(tokens) - 1 - start]

    def _sample(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[bytes | None]:
        """The bytes of one sampled token after another; None at the end of generation."""
        random = np.random.default_rng(sampling.seed)
        self._clear_kv_cache()
        logits, tokens = self._prefill(prompt), list(prompt)
        while True:
            token = sample_token(logits, sampling, tokens[len(prompt) :], random)
            if self.model.is_eog(token):
                yield None
                return
            yield self.model.token_bytes(token)
            if len(tokens) + 1 >= self._n_ctx:
                return
            logits = self._decode([token], len(tokens), every=False)[0]
            tokens.append(token)

    def _prefill(self, prompt: Sequence[int]) -> NDArray[np.float32]:
        logits = np.empty(0, dtype=np.float32)
        for start in range(0, len(prompt), 512):
            logits = self._decode(prompt[start : start + 512], start, every=False)[0]
        return logits

    def _clear_kv_cache(self) -> None:
        self._cpp.llama_memory_clear(self._cpp.llama_get_memory(self._context), True)

    def _decode(self, tokens: Sequence[int], start: int, every: bool) -> NDArray[np.float32]:
        """Logits after each of `tokens` (or only the last), shape (positions, vocabulary).

        The array is llama.cpp's own memory: it changes with the next call.
        """
        count = len(tokens)
        if start + count > self._n_ctx:
            raise RunFailed(f"expected at most {self._n_ctx} tokens, found {start + count}")
        batch = self._cpp.llama_batch_init(count, 0, 1)
        try:
            for index, token in enumerate(tokens):
                batch.token[index], batch.pos[index] = token, start + index
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
                batch.logits[index] = every or index == count - 1
            batch.n_tokens = count
            status = self._cpp.llama_decode(self._context, batch)
        finally:
            self._cpp.llama_batch_free(batch)
        if status:
            raise RunFailed(f"llama.cpp could not run {count} tokens (status {status}): {last_error()}")
        logits = self._cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, shape=(count if every else 1, self.model.n_vocab))
