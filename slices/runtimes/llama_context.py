"""A llama.cpp context of several sequences: batched decoding, and the KV cache between batches.

Which tokens go into a batch is decided in `slices.runtimes.llama_batcher`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.errors import RunFailed
from slices.runtimes.cpu_lock import CpuLock
from slices.runtimes.llama_library import last_error
from slices.runtimes.llama_model import LlamaModel

N_BATCH = 512  # tokens in a batch


@dataclass(frozen=True)
class SequenceChunk:
    """Tokens of a sequence to decode from position `pos` on; `logits` asks for those after the last one."""

    seq_id: int
    tokens: Sequence[int]
    pos: int
    logits: bool


class LlamaContext:
    """A context of `n_seq_max` sequences, each of up to `n_ctx_seq` tokens."""

    def __init__(self, model: LlamaModel, n_seq_max: int, n_ctx_seq: int, threads: int) -> None:
        """Make the context.

        Raises:
            RunFailed: llama.cpp refuses it, as where memory is short.
        """
        self._model, self._cpp = model, model.cpp
        params = model.context_params(n_ctx_seq, threads, n_seq_max)
        params.n_outputs_max = max(n_seq_max, 16)
        params.n_outputs_max_per_seq = 1
        self._handle: Any = model.new_context(params)
        self._memory = self._cpp.llama_get_memory(self._handle)
        self._batch: Any = self._cpp.llama_batch_init(N_BATCH, 0, 1)
        self._cpu_lock = CpuLock(threads)
        self.n_ctx_seq = int(self._cpp.llama_n_ctx(self._handle)) // n_seq_max

    def decode(self, chunks: Sequence[SequenceChunk]) -> Mapping[int, NDArray[np.float32]]:
        """Run a batch of up to `N_BATCH` tokens; the logits (vocabulary,) asked for, by sequence.

        The arrays are llama.cpp's own memory: they change with the next call.

        Raises:
            RunFailed: llama.cpp could not; the KV cache of these sequences is undefined then.
        """
        rows = self._fill_batch(chunks)
        with self._cpu_lock.held():
            status = self._cpp.llama_decode(self._handle, self._batch)
        if status:
            count = self._batch.n_tokens
            raise RunFailed(f"llama.cpp could not run {count} tokens (status {status}): {last_error()}")
        return {seq_id: self._logits(row) for seq_id, row in rows.items()}

    def keep_prefix(self, seq_id: int, count: int) -> int:
        """Remove all but the first `count` tokens of a sequence from the KV cache; how many are left.

        All or none of the prefix: with sliding-window attention the cache of a prefix is complete only while
        the window before its end is still there.
        """
        oldest = self._cpp.llama_memory_seq_pos_min(self._memory, seq_id)
        needed_from = max(0, count - self._model.n_swa) if self._model.n_swa else 0
        complete = count and 0 <= oldest <= needed_from
        if complete and self._cpp.llama_memory_seq_rm(self._memory, seq_id, count, -1):
            return count
        self._cpp.llama_memory_seq_rm(self._memory, seq_id, -1, -1)
        return 0

    def clear(self) -> None:
        """Empty the KV cache of every sequence."""
        self._cpp.llama_memory_clear(self._memory, True)

    def close(self) -> None:
        """Free the context; calling it twice is fine."""
        if self._handle is not None:
            self._cpp.llama_batch_free(self._batch)
            self._cpp.llama_free(self._handle)
            self._handle = None
            self._cpu_lock.close()

    def _fill_batch(self, chunks: Sequence[SequenceChunk]) -> dict[int, int]:
        """Write the batch; the row of each sequence's logits in it."""
        batch, row, rows = self._batch, 0, {}
        for chunk in chunks:
            for index, token in enumerate(chunk.tokens):
                batch.token[row], batch.pos[row] = token, chunk.pos + index
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, chunk.seq_id
                batch.logits[row] = chunk.logits and index == len(chunk.tokens) - 1
                row += 1
            if chunk.logits:
                rows[chunk.seq_id] = row - 1
        batch.n_tokens = row
        return rows

    def _logits(self, row: int) -> NDArray[np.float32]:
        pointer = self._cpp.llama_get_logits_ith(self._handle, row)
        return np.ctypeslib.as_array(pointer, shape=(self._model.n_vocab,))
