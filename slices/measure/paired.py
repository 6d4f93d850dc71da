"""Differences between two models on the same documents or items, and how sure they are.

Nothing is assumed of how values are distributed: McNemar's exact test for right and wrong, a bootstrap over
documents for the rest. Many comparisons at once are corrected by Holm's method.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Difference:
    """Ours less theirs. `low` to `high` is a 95 % interval, `p` two-sided; `n` documents or items."""

    value: float
    low: float
    high: float
    p: float
    n: int


def bootstrap(ours: Values, theirs: Values, weights: Values, seed: int = 0) -> Difference:
    """The difference of two ratios of sums, documents drawn with replacement (Efron 1979).

    Args:
        ours, theirs: sums by document, such as bits; shape (documents,).
        weights: what they are divided by, such as bytes; shape (documents,).
    """
    gaps = ours - theirs
    count, value = len(gaps), float(gaps.sum() / weights.sum())
    drawn = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    found = gaps[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
    low, high = np.percentile(found, _INTERVAL)
    # The share of resamples on the other side of zero; one is added, so that no p is below what was tried.
    beyond = min(float((found <= 0).sum()), float((found >= 0).sum()))
    p = min(1.0, 2 * (beyond + 1) / (RESAMPLES + 1))
    return Difference(value=value, low=float(low), high=float(high), p=p, n=count)


def mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], seed: int = 0) -> Difference:
    """The difference in accuracy on the same items, with McNemar's exact test (1947); shapes (items,)."""
    gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    differing = gained + lost
    tail = sum(comb(differing, k) for k in range(min(gained, lost) + 1)) / 2**differing
    found = bootstrap(ours.astype(float), theirs.astype(float), np.ones(len(ours)), seed)
    return Difference(value=found.value, low=found.low, high=found.high, p=min(1.0, 2 * tail), n=len(ours))


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for how many they are (Holm 1979), in the order given."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    found, previous = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        previous = max(previous, min(1.0, values[index] * (len(values) - rank)))
        found[index] = previous
    return found
