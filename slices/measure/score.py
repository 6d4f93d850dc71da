"""Bits per byte: the bits that a model needs for a text over the bytes of the text.

A model of a smaller vocabulary needs more tokens, and pays for them here. Everything goes through
`Runtime.logprobs`, so what was measured is what is served.
"""

import math
from collections.abc import Callable

import numpy as np

from slices.errors import RunFailed
from slices.estimate import Values
from slices.measure.heldout import Heldout
from slices.measure.reading import documents_of, read_windows
from slices.runtime import Runtime

Progress = Callable[[str, int, int], None]  # what is scored, windows done, windows in all


def score(
    runtime: Runtime, text: Heldout, label: str, progress: Progress | None = None
) -> tuple[Values, Values, int]:
    """Bits and bytes of each document, shapes (documents,), and the number of tokens scored.

    Raises:
        RunFailed: the runtime gives no finite probability to a token; `label` is in the message.
    """
    rows = documents_of(text)
    bits, sizes, tokens = np.zeros(rows.max() + 1), np.zeros(rows.max() + 1), 0
    passages = read_windows(label, runtime, text)
    for done, (row, window, passage) in enumerate(zip(rows, text.windows, passages, strict=True), start=1):
        logprobs = runtime.logprobs(passage.tokens)
        if len(logprobs) != len(passage.tokens) - 1 or not np.isfinite(logprobs).all():
            raise RunFailed(f"{label}: the model gave no finite probability to every token of a window")
        bits[row] -= float(logprobs[passage.first - 1 :].sum()) / math.log(2)
        sizes[row] += window.nbytes
        tokens += passage.scored
        if progress:
            progress(label, done, len(passages))
    return bits, sizes, tokens
