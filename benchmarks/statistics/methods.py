"""P-values of many paired differences at once: our tests, what they replaced, and what else was tried.

Subsets and resamples are shared by the comparisons of a call; otherwise the tests are those of
`slices.measure.paired`, which a test holds them against.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator

from slices.measure.sign_flip import Values
from slices.measure.skewness_t import skewness_t
from slices.measure.student_t import two_sided_p

Method = Callable[[Values, Values, float, Generator], Values]  # gaps, weights, level, random -> p-values
BEFORE, FLIP, SKEW, NOW = "percentile bootstrap", "sign flip", "skewness-corrected t", "larger p of the two"
RESAMPLES = 2000
LEAST = 2 / (RESAMPLES + 1)
MAX_ENUMERATED = 10  # documents
SUBSETS = 19_999
_SCREENED = 1999  # subsets that tell whether p is far above a level: by 1.8 times it, and by 0.01


def percentile_bootstrap(gaps: Values, weights: Values, level: float, random: Generator) -> Values:
    """Twice the share of resamples (Efron 1979) on the other side of zero; never below `LEAST`."""
    if level <= LEAST:
        return np.full(len(gaps), LEAST)
    return _two_sided(_resamples(gaps.shape[1], random) @ gaps.T, 0.0)


def paired_t(gaps: Values, weights: Values, level: float, random: Generator) -> Values:
    """Student's t of the ratio, its standard error by linearization."""
    sums = [each.sum(axis=1) for each in _products(gaps, weights)]
    ratio, stderr = _ratio(sums, gaps.shape[1])
    return np.array([two_sided_p(t, gaps.shape[1] - 1) for t in ratio / stderr])


def bootstrap_t(gaps: Values, weights: Values, level: float, random: Generator) -> Values:
    """The ratio's t among those of resamples (Efron and Tibshirani 1993, ch. 12); never below `LEAST`."""
    if level <= LEAST:
        return np.full(len(gaps), LEAST)
    drawn, count = _resamples(gaps.shape[1], random), gaps.shape[1]
    ratio, stderr = _ratio([each.sum(axis=1) for each in _products(gaps, weights)], count)
    ratios, stderrs = _ratio([drawn @ each.T for each in _products(gaps, weights)], count)
    return _two_sided((ratios - ratio) / stderrs, ratio / stderr)


def sign_flip(gaps: Values, weights: Values, level: float, random: Generator) -> Values:
    """Sums of all subsets, or of few and then, where p is not far above the level, of more."""
    count = gaps.shape[1]
    if count <= MAX_ENUMERATED:
        bits = np.arange(1, 2**count)[:, None] >> np.arange(count) & 1
        return _two_sided(bits.astype(np.float64) @ gaps.T, 0.0)
    found = _two_sided(random.integers(0, 2, (_SCREENED, count)).astype(np.float64) @ gaps.T, 0.0)
    near = found <= max(1.8 * level, 0.01)
    if near.any():
        chosen = random.integers(0, 2, (SUBSETS, count)).astype(np.float64)
        found[near] = _two_sided(chosen @ gaps[near].T, 0.0)
    return found


def skewness_corrected(gaps: Values, weights: Values, level: float, random: Generator) -> Values:
    """The t-test corrected for skewness."""
    return np.array([skewness_t(*pair).p for pair in zip(gaps, weights, strict=True)])


METHODS: Mapping[str, Method] = {
    BEFORE: percentile_bootstrap,
    "paired t": paired_t,
    "bootstrap-t": bootstrap_t,
    FLIP: sign_flip,
    SKEW: skewness_corrected,
}


def p_values(
    gaps: Values, weights: Values, level: float, random: Generator, methods: Mapping[str, Method] = METHODS
) -> dict[str, Values]:
    """By method, and the larger of the two that `paired_difference` uses; each (comparisons,).

    Args:
        gaps, weights: (comparisons, documents).
        level: to which p-values are compared; those far above it may be rough.
    """
    found = {name: method(gaps, weights, level, random) for name, method in methods.items()}
    return found | ({NOW: np.maximum(found[FLIP], found[SKEW])} if SKEW in found else {})


def _two_sided(found: Values, at: Values | float) -> Values:
    """Twice the smaller share of what was found at or beyond a value; found: (draws, comparisons)."""
    beyond = np.minimum((found <= at).sum(axis=0), (found >= at).sum(axis=0))
    return np.asarray(np.minimum(1.0, 2 * (beyond + 1) / (len(found) + 1)))


def _resamples(count: int, random: Generator) -> Values:
    """How often each document is drawn; (RESAMPLES, documents)."""
    return random.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)


def _products(gaps: Values, weights: Values) -> list[Values]:
    return [gaps, weights, gaps**2, gaps * weights, weights**2]


def _ratio(sums: list[Values], count: int) -> tuple[Values, Values]:
    """Ratio of sums and its standard error, from the sums of `_products`."""
    gap, weight, gap_square, product, weight_square = sums
    ratio = gap / weight
    square = gap_square - 2 * ratio * product + ratio**2 * weight_square
    return ratio, np.sqrt(np.maximum(square, 1e-12) * count / (count - 1)) / weight
