"""Several sequences in one llama.cpp context: what is run in a step, and what is kept between steps.

Every sequence has its own part of the context. Which tokens go where is `slices.runtimes.llama_batcher`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.errors import RunFailed
from slices.runtimes.llama_library import last_complaint
from slices.runtimes.llama_model import LlamaModel
from slices.runtimes.turns import Turns

MOST = 512  # tokens in a step


@dataclass(frozen=True)
class Part:
    """Tokens of a sequence to run from position `start` on; `wanted` asks for what follows the last one."""

    sequence: int
    tokens: Sequence[int]
    start: int
    wanted: bool


class LlamaSlots:
    """A context of `count` sequences, each of up to `length` tokens."""

    def __init__(self, model: LlamaModel, count: int, context: int, threads: int) -> None:
        """Make the context.

        Raises:
            RunFailed: llama.cpp refuses it, as where memory is short.
        """
        self._model, self._cpp = model, model.cpp
        params = model.settings(context, threads, count)
        params.n_outputs_max = max(count, 16)
        params.n_outputs_max_per_seq = 1
        self._context: Any = model.context(params)
        self._memory = self._cpp.llama_get_memory(self._context)
        self._batch: Any = self._cpp.llama_batch_init(MOST, 0, 1)
        self._turns = Turns(threads)
        self.length = int(self._cpp.llama_n_ctx(self._context)) // count

    def decode(self, parts: Sequence[Part]) -> Mapping[int, NDArray[np.float32]]:
        """Run up to `MOST` tokens together; the logits (vocabulary,) wanted, by sequence.

        The arrays are llama.cpp's own memory: they change with the next call.

        Raises:
            RunFailed: llama.cpp could not; what the context holds of these sequences is not known then.
        """
        last = self._fill(parts)
        with self._turns.taken():
            status = self._cpp.llama_decode(self._context, self._batch)
        if status:
            count = self._batch.n_tokens
            raise RunFailed(f"llama.cpp could not run {count} tokens (status {status}): {last_complaint()}")
        return {sequence: self._logits(row) for sequence, row in last.items()}

    def keep(self, sequence: int, count: int) -> int:
        """Forget all but the first `count` tokens of a sequence; how many are left, which may be none.

        A sliding layer's window has moved on: it can go back only as far as all that it would see is there.
        """
        oldest = self._cpp.llama_memory_seq_pos_min(self._memory, sequence)
        seen = max(0, count - self._model.window) if self._model.window else 0
        if count and 0 <= oldest <= seen and self._cpp.llama_memory_seq_rm(self._memory, sequence, count, -1):
            return count
        self._cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return 0

    def forget(self) -> None:
        """Forget every sequence."""
        self._cpp.llama_memory_clear(self._memory, True)

    def close(self) -> None:
        """Free the context; calling it twice is fine."""
        if self._context is not None:
            self._cpp.llama_batch_free(self._batch)
            self._cpp.llama_free(self._context)
            self._context = None
            self._turns.close()

    def _fill(self, parts: Sequence[Part]) -> dict[int, int]:
        """Write the batch; at which of its rows each sequence's wanted logits will be."""
        batch, at, last = self._batch, 0, {}
        for part in parts:
            for index, token in enumerate(part.tokens):
                batch.token[at], batch.pos[at] = token, part.start + index
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, part.sequence
                batch.logits[at] = part.wanted and index == len(part.tokens) - 1
                at += 1
            if part.wanted:
                last[part.sequence] = at - 1
        batch.n_tokens = at
        return last

    def _logits(self, row: int) -> NDArray[np.float32]:
        found = self._cpp.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(found, shape=(self._model.rows,))
