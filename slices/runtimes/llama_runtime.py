"""A GGUF file, run by llama.cpp through its low-level API.

Low-level, because the high-level class keeps the logits of a whole context: 537 MB for 512 positions of
a vocabulary of 262 thousand. Here they are read a chunk at a time. Check the file first
(`slices.gguf.header`): llama.cpp may end the process on a bad one.
"""

import ctypes
from collections.abc import Iterator, Sequence
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.errors import PromptTooLong, RunFailed
from slices.runtime import Piece, Sampling
from slices.runtimes.llama_library import last_complaint, load_library
from slices.runtimes.sampling import choose
from slices.runtimes.softmax import log_softmax, log_softmax_at
from slices.runtimes.streaming import pieces

_CHUNK_LOGITS = 2**24  # float32 logits in memory at once: 64 MB
CONTEXT_STEP = 256  # llama.cpp aborts on a batch larger than a context that it had to round up to this


class LlamaRuntime:
    """A model in llama.cpp with one sequence. Not thread-safe. Implements `slices.runtime.Runtime`."""

    def __init__(self, path: Path, threads: int | None = None, context: int = 4096) -> None:
        """Load `path`.

        Args:
            threads: processor threads; by default every core.
            context: most tokens of a prompt and its answer together.

        Raises:
            MissingExtra: llama-cpp-python is not installed.
            RunFailed: llama.cpp refuses the file.
        """
        self._cpp = load_library()
        self._model: Any = None
        self._context: Any = None
        self._threads = threads or cpu_count() or 1
        self._load(path, context)
        self._vocab = self._cpp.llama_model_get_vocab(self._model)
        self._rows = int(self._cpp.llama_vocab_n_tokens(self._vocab))
        self._length = int(self._cpp.llama_n_ctx(self._context))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` after a bos; control tokens in it are read as text."""
        return self._tokenize(text, control=False)

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Natural-log probability of tokens[1:], each given all before it. Shape (len(tokens) - 1,)."""
        targets = np.asarray(tokens[1:], dtype=np.int64)
        found = np.empty(len(targets), dtype=np.float64)
        self._forget()
        for start in range(0, len(targets), self._chunk):
            stop = min(start + self._chunk, len(targets))
            logits = self._decode(tokens[start:stop], start, every=True)
            found[start:stop] = log_softmax_at(logits, targets[start:stop])
        return found

    def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Log probabilities of every next token, in chunks of shape (positions, vocabulary)."""
        scored = list(tokens[:-1])
        self._forget()
        for start in range(0, len(scored), self._chunk):
            yield log_softmax(self._decode(scored[start : start + self._chunk], start, every=True))

    def expected_counts(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Sum of the next token's distribution over all positions of `tokens`. Shape (vocabulary,)."""
        total = np.zeros(self._rows, dtype=np.float64)
        self._forget()
        for start in range(0, len(tokens), self._chunk):
            for logits in self._decode(tokens[start : start + self._chunk], start, every=True):
                weights = np.exp(logits - logits.max())
                total += weights / weights.sum(dtype=np.float64)
        return total

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        """Continue `prompt`, whose control tokens count as such. Closing the iterator stops the run."""
        return pieces(self._sample(self._tokenize(prompt, control=True), sampling), sampling)

    def close(self) -> None:
        """Free the model; calling it twice is fine."""
        if self._context is not None:
            self._cpp.llama_free(self._context)
            self._context = None
        if self._model is not None:
            self._cpp.llama_model_free(self._model)
            self._model = None

    def _load(self, path: Path, context: int) -> None:
        params = self._cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = self._cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise RunFailed(f"llama.cpp cannot load {path}: {last_complaint()}")
        vocab = self._cpp.llama_model_get_vocab(self._model)
        self._chunk = max(16, min(512, _CHUNK_LOGITS // self._cpp.llama_vocab_n_tokens(vocab)))
        self._context = self._cpp.llama_init_from_model(self._model, self._settings(context))
        if not self._context:
            self.close()
            raise RunFailed(f"llama.cpp cannot run {path}: {last_complaint()}")

    def _settings(self, context: int) -> ctypes.Structure:
        params: Any = self._cpp.llama_context_default_params()
        rounded = -(-context // CONTEXT_STEP) * CONTEXT_STEP
        params.n_ctx = min(rounded, self._cpp.llama_model_n_ctx_train(self._model))
        params.n_batch = 512
        params.n_ubatch = 512
        params.n_outputs_max = self._chunk
        params.n_outputs_max_per_seq = self._chunk
        params.swa_full = False  # sliding layers keep their window, not the whole context
        params.n_threads = self._threads
        params.n_threads_batch = self._threads
        return params  # type: ignore[no-any-return]

    def _tokenize(self, text: str, control: bool) -> list[int]:
        raw = text.encode()
        room = len(raw) + 8
        for _ in range(2):  # a space may take three tokens, where it is spelled in bytes
            buffer = (ctypes.c_int32 * room)()
            count = self._cpp.llama_tokenize(self._vocab, raw, len(raw), buffer, room, True, control)
            if count >= 0:
                break
            room = -count
        if count < 0:
            raise RunFailed(f"llama.cpp could not tokenize a text of {len(raw)} bytes")
        tokens = list(buffer[:count])
        return tokens[1:] if control and len(tokens) > 1 and tokens[0] == tokens[1] == self._bos else tokens

    @property
    def _bos(self) -> int:
        return int(self._cpp.llama_vocab_bos(self._vocab))

    def _sample(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[bytes | None]:
        """Bytes of one drawn token after another; None and an end where the model ends."""
        random = np.random.default_rng(sampling.seed)
        self._forget()
        logits, tokens = self._read(prompt), list(prompt)
        while True:
            token = choose(logits, sampling, tokens[len(prompt) :], random)
            if self._cpp.llama_vocab_is_eog(self._vocab, token):
                yield None
                return
            yield self._bytes(token)
            if len(tokens) + 1 >= self._length:
                return
            logits = self._decode([token], len(tokens), every=False)[0]
            tokens.append(token)

    def _read(self, prompt: Sequence[int]) -> NDArray[np.float32]:
        if len(prompt) >= self._length:
            raise PromptTooLong(f"the prompt has {len(prompt)} tokens, but the context holds {self._length}")
        logits = np.empty(0, dtype=np.float32)
        for start in range(0, len(prompt), 512):
            logits = self._decode(prompt[start : start + 512], start, every=False)[0]
        return logits

    def _forget(self) -> None:
        self._cpp.llama_memory_clear(self._cpp.llama_get_memory(self._context), True)

    def _decode(self, tokens: Sequence[int], start: int, every: bool) -> NDArray[np.float32]:
        """Logits after each of `tokens` (or only the last), shape (positions, vocabulary).

        The array is llama.cpp's own memory: it changes with the next call.
        """
        count = len(tokens)
        if start + count > self._length:
            raise RunFailed(f"expected at most {self._length} tokens, found {start + count}")
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
            raise RunFailed(f"llama.cpp could not run {count} tokens (status {status}): {last_complaint()}")
        logits = self._cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, shape=(count if every else 1, self._rows))

    def _bytes(self, token: int) -> bytes:
        room = 256
        buffer = ctypes.create_string_buffer(room)
        count = self._cpp.llama_token_to_piece(self._vocab, token, buffer, room, 0, False)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = self._cpp.llama_token_to_piece(self._vocab, token, buffer, -count, 0, False)
        return buffer.raw[:count]
