"""Differences between two models on the same documents or items, and how sure they are.

Ratios of sums, such as bits per byte, are tested twice, and the larger p-value counts: by the sign-flip test,
exact for gaps that are symmetric about zero, and by a t-test corrected for skewness. Right and wrong answers
are tested by McNemar's exact test. Below `MIN_DOCUMENTS` nothing is claimed. Many comparisons at once are
corrected by Holm's method. How often each test finds a difference where there is none: benchmarks/statistics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from slices.measure.sign_flip import SIGNIFICANCE_LEVEL, Inference, Values, sign_flip
from slices.measure.skewness_t import skewness_t

Key = TypeVar("Key")
MIN_DOCUMENTS = 8  # documents or items; with fewer, tests reject too often or never


@dataclass(frozen=True)
class Difference:
    """Ours less theirs: `value`, its 95 % interval from `low` to `high`, and the two-sided `p`.

    `n` is the number of documents or items; below `MIN_DOCUMENTS`, `low`, `high` and `p` are None: not known.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    n: int

    @property
    def significant(self) -> bool:
        """Whether p is known and below `SIGNIFICANCE_LEVEL`."""
        return self.p is not None and self.p < SIGNIFICANCE_LEVEL


def paired_difference(ours: Values, theirs: Values, weights: Values, seed: int = 0) -> Difference:
    """The difference of two ratios of sums on the same documents.

    Interval and p-value agree: zero lies outside the interval where p is below 5 %.

    Args:
        ours, theirs: sums by document, such as bits; shape (documents,).
        weights: what they are divided by, such as bytes, all positive; shape (documents,).
        seed: of the sign-flip test, where not all subsets are enumerated.
    """
    gaps, value = ours - theirs, float((ours - theirs).sum() / weights.sum())
    if len(gaps) < MIN_DOCUMENTS:
        return _unknown(value, len(gaps))
    symmetric, skewed = sign_flip(gaps, weights, seed), skewness_t(gaps, weights)
    both = Inference(
        low=min(symmetric.low, skewed.low),
        high=max(symmetric.high, skewed.high),
        p=max(symmetric.p, skewed.p),
    )
    return Difference(value=value, low=both.low, high=both.high, p=both.p, n=len(gaps))


def mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], seed: int = 0) -> Difference:
    """The difference in accuracy on the same items, with McNemar's exact test (1947); shapes (items,).

    For right and wrong the sign-flip test is McNemar's, so that its interval is that of `sign_flip`.
    """
    gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    value = (gained - lost) / len(ours)
    if len(ours) < MIN_DOCUMENTS:
        return _unknown(value, len(ours))
    differing = gained + lost
    tail = sum(comb(differing, k) for k in range(min(gained, lost) + 1)) / 2**differing
    found = sign_flip(ours.astype(float) - theirs.astype(float), np.ones(len(ours)), seed)
    return Difference(value=value, low=found.low, high=found.high, p=min(1.0, 2 * tail), n=len(ours))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for how many are known (Holm 1979), in the order given; None stays None."""
    known = [(value, index) for index, value in enumerate(values) if value is not None]
    found: list[float | None] = [None] * len(values)
    previous = 0.0
    for rank, (value, index) in enumerate(sorted(known)):
        previous = max(previous, min(1.0, value * (len(known) - rank)))
        found[index] = previous
    return found


def corrected(found: Mapping[Key, Difference]) -> dict[Key, Difference]:
    """Differences whose p-values are corrected by `holm` for how many are known."""
    values = holm([each.p for each in found.values()])
    return {key: replace(each, p=p) for (key, each), p in zip(found.items(), values, strict=True)}


def _unknown(value: float, count: int) -> Difference:
    return Difference(value=value, low=None, high=None, p=None, n=count)
