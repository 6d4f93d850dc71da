"""Continuous batching: several sequences in one llama.cpp context, each a token further with every step.

A sequence joins at the next step and leaves with its last token, while the others go on (Orca: Yu et al.,
2022, OSDI). Prompts are prefilled in chunks between decode steps, so that a long prompt delays no other
answer for long (Sarathi: Agrawal et al., 2023, arXiv 2308.16369). A slot keeps its KV cache after its
answer: a prompt that begins with the same tokens, as the next turn of a chat does, reuses that prefix.
"""

from collections.abc import Sequence
from os import cpu_count
from pathlib import Path

from slices.errors import SliceError
from slices.runtime import Capacity, Piece, Sampling, Slot
from slices.runtimes.llama_context import N_BATCH, LlamaContext, SequenceChunk
from slices.runtimes.llama_generation import Generation
from slices.runtimes.llama_model import LlamaModel

MAX_PREFILL_TOKENS = 128  # prompt tokens in a step that also decodes


class LlamaBatcher:
    """A GGUF file in llama.cpp that answers several prompts at a time; a `slices.runtime.Batcher`."""

    def __init__(self, path: Path, capacity: Capacity) -> None:
        """Load `path`.

        Raises:
            MissingExtra: llama-cpp-python is not installed.
            RunFailed: llama.cpp refuses the file, or memory is short.
        """
        self.max_num_seqs = capacity.max_num_seqs
        self._model = LlamaModel(path)
        threads = capacity.threads or cpu_count() or 1
        try:
            self._context = LlamaContext(
                model=self._model,
                n_seq_max=capacity.max_num_seqs,
                n_ctx_seq=capacity.max_model_len,
                threads=threads,
            )
        except SliceError:
            self._model.close()
            raise
        self._running: dict[int, Generation] = {}  # by slot
        self._cached: list[list[int]] = [[] for _ in range(self.max_num_seqs)]  # token ids in the KV cache

    def begin(self, prompt: str, sampling: Sampling) -> Slot:
        """Take a prompt, control tokens in it included, to the free slot with the longest common prefix."""
        tokens = self._model.tokenize_prompt(prompt, self._context.n_ctx_seq)
        generation = Generation(
            model=self._model, prompt=tokens, sampling=sampling, n_ctx=self._context.n_ctx_seq
        )
        free = [slot for slot in range(self.max_num_seqs) if slot not in self._running]
        prefixes = {slot: _common_prefix(self._cached[slot], tokens) for slot in free}
        slot = max(free, key=lambda each: (prefixes[each], -len(self._cached[each])))
        common = min(prefixes[slot], len(tokens) - 1)  # the last one gives logits
        generation.n_past = self._context.keep_prefix(slot, common)
        self._cached[slot] = tokens[: generation.n_past]
        self._running[slot] = generation
        return Slot(slot, len(tokens), generation.n_past)

    def step(self) -> Sequence[tuple[int, Piece]]:
        """Run one batch: the next tokens of every running sequence."""
        chunks = self._schedule()
        try:
            logits = self._context.decode(chunks)
        except SliceError:
            self._reset()
            raise
        for chunk in chunks:
            self._running[chunk.seq_id].n_past += len(chunk.tokens)
            self._cached[chunk.seq_id] += chunk.tokens
        pieces = [(slot, piece) for slot in logits for piece in self._running[slot].advance(logits[slot])]
        for slot, piece in pieces:
            if piece.finish_reason:
                self.abort(slot)
        return pieces

    def abort(self, slot: int) -> None:
        """Stop an answer and free its slot; its KV cache stays for a prompt with the same prefix."""
        generation = self._running.pop(slot, None)
        if generation is not None:
            generation.close()

    def close(self) -> None:
        """Free the model; calling it twice is fine."""
        for slot in list(self._running):
            self.abort(slot)
        self._context.close()
        self._model.close()

    def _schedule(self) -> list[SequenceChunk]:
        """The next batch: the last token of each decoding sequence, and chunks of the new prompts."""
        pending = {slot: generation.n_pending for slot, generation in self._running.items()}
        decoding = [slot for slot, count in pending.items() if count == 1]
        prefilling = {slot: count for slot, count in pending.items() if count > 1}
        budget = (MAX_PREFILL_TOKENS if decoding else N_BATCH) if prefilling else 0
        counts = split_budget(min(budget, N_BATCH - len(decoding)), prefilling)
        return [self._chunk(slot, counts.get(slot, 1)) for slot in (*decoding, *counts)]

    def _chunk(self, slot: int, count: int) -> SequenceChunk:
        generation = self._running[slot]
        tokens = generation.tokens[generation.n_past : generation.n_past + count]
        return SequenceChunk(
            seq_id=slot, tokens=tokens, pos=generation.n_past, logits=count == generation.n_pending
        )

    def _reset(self) -> None:
        for slot in list(self._running):
            self.abort(slot)
        self._context.clear()
        self._cached = [[] for _ in range(self.max_num_seqs)]


def split_budget(budget: int, pending: dict[int, int]) -> dict[int, int]:
    """Tokens of each sequence in a step: equal shares of `budget`, at most what is pending; short ones first.

    Args:
        pending: tokens of each sequence that are not in the KV cache yet.
    """
    counts: dict[int, int] = {}
    for slot in sorted(pending, key=lambda each: (pending[each], each)):
        count = min(pending[slot], budget // (len(pending) - len(counts)))
        counts[slot] = count
        budget -= count
    return {slot: count for slot, count in counts.items() if count}


def _common_prefix(cached: Sequence[int], tokens: Sequence[int]) -> int:
    """Length of the common prefix of two token sequences."""
    for index, (one, other) in enumerate(zip(cached, tokens, strict=False)):
        if one != other:
            return index
    return min(len(cached), len(tokens))
