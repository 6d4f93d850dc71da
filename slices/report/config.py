"""The configuration of an evaluation: tasks, limits, window sizes."""

from dataclasses import dataclass

from slices.measure.heldout import WINDOW_BYTES
from slices.measure.long_text import DOCUMENTS as LONG_DOCUMENTS
from slices.probes.needle_in_a_haystack import LENGTHS
from slices.probes.run import ITEMS
from slices.report.eval_task import EvalTask

MAX_BYTES = 60_000
NEEDLE_MARGIN = 64  # tokens of the prompt beside the haystack, and of the answer
MIN_CONTEXT = 4096


@dataclass(frozen=True)
class EvalConfig:
    """What is measured, and how much of it.

    Attributes:
        max_bytes: held-out text of a domain, a fixed sample of its windows; None for all of it.
        window_bytes: text of one forward pass, UTF-8.
        stride_bytes: how many of them, the last ones, are scored; None for all.
        limit: documents of held-out text and items of a task, for each domain; None for all documents and
            `ITEMS` items.
        needle_lengths: context lengths of the needle in a haystack, in tokens.
        long_documents: long documents for each domain, for bits by position; 0 leaves long text out.
        min_context: tokens of context with which models are loaded at least, where they take as many.
        max_context: tokens that the model of the smallest context takes; None for no limit.
    """

    tasks: frozenset[EvalTask] = frozenset({EvalTask.TEXT})
    max_bytes: int | None = MAX_BYTES
    window_bytes: int = WINDOW_BYTES
    stride_bytes: int | None = None
    limit: int | None = None
    needle_lengths: tuple[int, ...] = LENGTHS
    threads: int | None = None
    seed: int = 0
    long_documents: int = LONG_DOCUMENTS
    min_context: int = MIN_CONTEXT
    max_context: int | None = None

    @property
    def items(self) -> int:
        """Items of a task, for each domain."""
        return ITEMS if self.limit is None else self.limit

    @property
    def long_text_documents(self) -> int:
        """Long documents for each domain, within `limit`."""
        return self.long_documents if self.limit is None else min(self.long_documents, self.limit)

    @property
    def context_length(self) -> int:
        """Tokens of context with which models are loaded."""
        needed = [self.min_context, self.window_bytes + 2]  # one token a byte at most
        if EvalTask.PROBES in self.tasks:
            needed += [length + NEEDLE_MARGIN for length in self.needle_lengths]
        return max(needed) if self.max_context is None else min(max(needed), self.max_context)
