"""Bits per byte: the bits that a model needs for a text, over the bytes of the text.

A model of a smaller vocabulary needs more tokens, and pays for them here. Everything goes through
`slices.runtime.Runtime`, so what was measured is what is served.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slices.estimate import Estimate, Values, ratio
from slices.measure.heldout import Heldout
from slices.measure.log_probs import scored_log_probs
from slices.measure.tokenized import TokenWindow, document_indices, tokenize_windows
from slices.progress import Progress
from slices.runtime import Runtime


@dataclass(frozen=True)
class TextScore:
    """Bits per byte of a model on a text. `bits` and `bytes` are sums by document, shape (documents,)."""

    bits_per_byte: Estimate
    tokens: int
    bits: Values
    bytes: Values


class DocumentTotals:
    """Sums by document of values at every scored position."""

    def __init__(self, text: Heldout, windows: Sequence[TokenWindow]) -> None:
        rows = document_indices(text)
        self._rows = np.repeat(rows, [each.scored for each in windows])
        self._count = int(rows.max()) + 1
        self.tokens = len(self._rows)
        sizes = np.array([window.nbytes for window in text.windows], np.float64)
        self.bytes: Values = np.bincount(rows, weights=sizes, minlength=self._count).astype(np.float64)

    def sums(self, values: NDArray[np.floating] | NDArray[np.bool_]) -> Values:
        """Sums of `values` (positions,) by document; (documents,)."""
        return np.bincount(self._rows, weights=values, minlength=self._count).astype(np.float64)


def score_text(
    name: str,
    runtime: Runtime,
    text: Heldout,
    windows: Sequence[TokenWindow] | None = None,
    progress: Progress | None = None,
) -> TextScore:
    """Bits per byte of a model on a text.

    Args:
        windows: as the model encodes the text; encoded here by default.

    Raises:
        RunFailed: the model gives no finite probability; `name` is in the message.
    """
    windows = windows or tokenize_windows(name, runtime, text)
    parts = [
        log_probs[np.arange(len(log_probs)), target_ids]
        for target_ids, log_probs in scored_log_probs(name, runtime, windows, progress)
    ]
    documents = DocumentTotals(text, windows)
    bits = documents.sums(to_bits(np.concatenate(parts)))
    return TextScore(
        bits_per_byte=ratio(bits, documents.bytes), tokens=documents.tokens, bits=bits, bytes=documents.bytes
    )


def to_bits(log_probs: NDArray[np.floating]) -> Values:
    """Natural-log probabilities as bits."""
    return -log_probs.astype(np.float64) / math.log(2)
