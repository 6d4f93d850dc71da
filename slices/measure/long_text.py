"""Bits by position in long documents: what attention beyond the sliding window is worth.

A window is the beginning of one document, cut at the bytes where a reference tokenizer has read 512, 1,024,
2,048, 4,096 and 8,192 tokens. Every model reads the same bytes, and the bins between two cuts hold the same
bytes for each, so that values compare across vocabularies. One causal forward pass over a window gives the
bits of all its bins.
"""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from slices.errors import RunFailed
from slices.measure.heldout import cut
from slices.progress import Progress, no_progress
from slices.runtime import Runtime

EDGES = (0, 512, 1024, 2048, 4096, 8192)  # of the bins, in tokens of the reference, a bos included
LENGTHS = (1024, 2048, 4096, 8192)  # tokens of a window: the longest that the document fills is taken
DOCUMENTS = 12  # of a domain: with 8, the least p is .008, too much for Holm among 7 comparisons
_MAX_BYTES_PER_TOKEN = 16  # more than text has over a bin; bounds the search for a cut


@dataclass(frozen=True)
class LongText:
    """The long documents of a domain. Of each document, `parts` holds the text of every bin it fills."""

    parts: tuple[tuple[str, ...], ...]

    @property
    def sha256(self) -> str:
        """Identity of the text and of its cuts."""
        digest = hashlib.sha256()
        for document in self.parts:
            digest.update(len(document).to_bytes(8, "little"))
            for part in document:
                digest.update(len(part.encode()).to_bytes(8, "little") + part.encode())
        return digest.hexdigest()

    @property
    def nbytes(self) -> list[list[int]]:
        """UTF-8 bytes by document and bin."""
        return [[len(part.encode()) for part in document] for document in self.parts]


@dataclass(frozen=True)
class PositionScore:
    """Bits by document and bin; `tokens` that were scored, and of how many documents the end was not read."""

    bits: list[list[float]]
    tokens: int
    truncated: int


def choose_long_text(
    runtime: Runtime, documents: Sequence[str], count: int = DOCUMENTS, max_tokens: int = LENGTHS[-1]
) -> LongText:
    """At most `count` of the documents that fill a window of 1,024 tokens, cut into bins.

    Documents are grouped by the longest window that they fill, and taken from the groups in turn, beginning
    with the longest, each group in the order of its documents' hashes: every bin is measured on some, and the
    choice is the same on every machine.

    Args:
        runtime: whose tokens are counted, the baseline's.
        max_tokens: the longest window, at least 1,024.
    """
    lengths = [length for length in LENGTHS if length <= max_tokens]
    groups: dict[int, list[str]] = {length: [] for length in reversed(lengths)}
    for document in sorted(documents, key=lambda text: hashlib.sha256(text.encode()).digest()):
        tokens = _count_tokens(runtime, document, lengths)
        filled = [length for length in lengths if length <= tokens]
        if filled:
            groups[filled[-1]].append(document)
    taken = [
        (length, group[turn])
        for turn in range(count)
        for length, group in groups.items()
        if turn < len(group)
    ]
    return LongText(tuple(_cut_bins(runtime, document, length) for length, document in taken[:count]))


def score_positions(
    name: str, runtime: Runtime, text: LongText, max_tokens: int, progress: Progress = no_progress
) -> PositionScore:
    """Bits of a model in every bin of every document.

    Args:
        max_tokens: the model's context; bins at the end of a document that exceed it are left out.

    Raises:
        RunFailed: the model gives no finite probability; `name` is in the message.
    """
    bits, scored, truncated = [], 0, 0
    for number, parts in enumerate(text.parts, start=1):
        tokens, ends = _tokenize(runtime, parts)
        kept = [end for end in ends if end <= max_tokens]
        truncated += len(kept) < len(ends)
        logprobs = runtime.logprobs(tokens[: kept[-1]]) if kept else np.empty(0)
        if not np.isfinite(logprobs).all():
            raise RunFailed(f"{name} gave no finite probability to every token of long document {number}")
        starts = [1, *kept[:-1]]  # the first token is not predicted
        bits.append(
            [-float(logprobs[a - 1 : b - 1].sum()) / math.log(2) for a, b in zip(starts, kept, strict=False)]
        )
        scored += len(logprobs)
        progress(f"long text: {name}", number, len(text.parts))
    return PositionScore(bits=bits, tokens=scored, truncated=truncated)


def _tokenize(runtime: Runtime, parts: Iterable[str]) -> tuple[list[int], list[int]]:
    """Token ids of a document, its parts encoded apart so that no token spans two, and where each ends."""
    bos = runtime.encode("")
    tokens, ends = list(bos), list[int]()
    for part in parts:
        tokens += runtime.encode(part)[len(bos) :]
        ends.append(len(tokens))
    return tokens, ends


def _count_tokens(runtime: Runtime, document: str, lengths: Sequence[int]) -> int:
    """Tokens of a document, as far as they matter; 0 where its bytes are fewer than the shortest window."""
    raw = document.encode()
    if len(raw) < lengths[0]:
        return 0
    return len(runtime.encode(raw[: lengths[-1] * _MAX_BYTES_PER_TOKEN].decode(errors="ignore")))


def _cut_bins(runtime: Runtime, document: str, length: int) -> tuple[str, ...]:
    """The text of every bin up to `length` tokens, each cut before whitespace."""
    bos, rest, parts = len(runtime.encode("")), document, []
    for start, end in pairwise(EDGES):
        if end > length:
            break
        count = end - start - (bos if start == 0 else 0)
        parts.append(_first_tokens(runtime, rest, count + bos))
        rest = rest[len(parts[-1]) :]
    return tuple(parts)


def _first_tokens(runtime: Runtime, text: str, tokens: int) -> str:
    """The longest beginning of `text` that is cut before whitespace and encodes to at most `tokens`."""
    start = text[: tokens * _MAX_BYTES_PER_TOKEN]

    def count(size: int) -> int:
        return len(runtime.encode(next(cut(start, size), "")))

    sizes = range(4, len(start.encode()) + 1)  # bytes; a character has at most 4
    return next(cut(start, sizes[max(0, bisect_right(sizes, tokens, key=count) - 1)]), "")
