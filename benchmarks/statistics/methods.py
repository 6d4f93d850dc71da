"""P-values of a paired difference by method: ours, what it replaced, and what it was compared with.

A method may stop early and return any p of at least `level` where its own is known not to be below it.
"""

from collections.abc import Callable, Mapping

import numpy as np

from slices.measure.paired import MIN_DOCUMENTS, paired_difference
from slices.measure.sign_flip import Values, sign_flip
from slices.measure.skewness_t import skewness_t
from slices.measure.student_t import two_sided_p

Method = Callable[[Values, Values, int, float], float]  # gaps, weights, seed, level -> p
BEFORE, NOW = "percentile bootstrap", "larger p of the two"
RESAMPLES = 2000
_LEAST = 2 / (RESAMPLES + 1)
_SCREEN = 1999  # subsets that tell whether p is far above a level: by 1.8 times it and by .01


def percentile_bootstrap(gaps: Values, weights: Values, seed: int, level: float) -> float:
    """Twice the share of resamples (Efron 1979) on the other side of zero; never below `_LEAST`."""
    if level <= _LEAST:
        return _LEAST
    count = len(gaps)
    drawn = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    found = gaps[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
    beyond = min(int((found <= 0).sum()), int((found >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (RESAMPLES + 1))


def paired_t(gaps: Values, weights: Values, seed: int, level: float) -> float:
    """Student's t of the ratio, its standard error by linearization."""
    ratio, stderr = _ratio(gaps, weights)
    return two_sided_p(float(ratio / stderr), len(gaps) - 1)


def bootstrap_t(gaps: Values, weights: Values, seed: int, level: float) -> float:
    """The ratio's t among those of resamples (Efron and Tibshirani 1993, ch. 12); never below `_LEAST`."""
    if level <= _LEAST:
        return _LEAST
    count = len(gaps)
    drawn = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    ratio, stderr = _ratio(gaps, weights)
    ratios, stderrs = _ratio(gaps[drawn], weights[drawn])
    resampled, found = (ratios - ratio) / np.maximum(stderrs, 1e-12), ratio / stderr
    beyond = min(int((resampled <= found).sum()), int((resampled >= found).sum()))
    return min(1.0, 2 * (beyond + 1) / (RESAMPLES + 1))


def sign_flip_alone(gaps: Values, weights: Values, seed: int, level: float) -> float:
    """First with few subsets, and with all where that p is not far above the level."""
    screened = sign_flip(gaps, weights, seed, _SCREEN).p
    return screened if screened > max(1.8 * level, 0.01) else sign_flip(gaps, weights, seed).p


def skewness_t_alone(gaps: Values, weights: Values, seed: int, level: float) -> float:
    """The t-test corrected for skewness."""
    return skewness_t(gaps, weights).p


def larger_p(gaps: Values, weights: Values, seed: int, level: float) -> float:
    """That of `paired_difference`, which is not run where one of its two tests has a p above the level."""
    alone = skewness_t(gaps, weights).p
    if alone >= level:
        return alone
    found = paired_difference(gaps, np.zeros(len(gaps)), weights, seed).p
    return 1.0 if found is None else found


METHODS: Mapping[str, Method] = {
    BEFORE: percentile_bootstrap,
    "paired t": paired_t,
    "bootstrap-t": bootstrap_t,
    "sign flip": sign_flip_alone,
    "skewness-corrected t": skewness_t_alone,
    NOW: larger_p,
}


def methods_for(documents: int) -> Mapping[str, Method]:
    """Those that give a p-value for so many documents: below `MIN_DOCUMENTS`, only what was replaced."""
    return METHODS if documents >= MIN_DOCUMENTS else {BEFORE: percentile_bootstrap}


def _ratio(gaps: Values, weights: Values) -> tuple[Values, Values]:
    """Ratio of sums over the last axis, and its standard error."""
    count, total = gaps.shape[-1], weights.sum(axis=-1)
    ratio = np.asarray(gaps.sum(axis=-1) / total)
    residuals = gaps - ratio[..., None] * weights
    return ratio, np.sqrt((residuals**2).sum(axis=-1) * count / (count - 1)) / total
