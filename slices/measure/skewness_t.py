"""The t-test of a ratio of sums, corrected for skewness by Hall's transformation."""

import math

import numpy as np

from slices.measure.sign_flip import SIGNIFICANCE_LEVEL, Inference, Values
from slices.measure.student_t import critical_value, two_sided_p

_NO_SKEWNESS = 1e-6  # below it the transformation is the identity, and its inverse loses digits


def skewness_t(gaps: Values, weights: Values) -> Inference:
    """Whether `gaps.sum() / weights.sum()` is zero, where gaps may be skewed.

    The t statistic t of the ratio (its standard error by linearization) becomes
    sqrt(n) * (T + aT^2 / 3 + a^2 T^3 / 27 + a / 6n) with T = t / sqrt(n) and a the skewness of the residuals
    (Hall 1992, "On the removal of skewness by transformation"). It is monotone, so the interval inverts it.

    Args:
        gaps, weights: differences and what they are divided by; shapes (documents,), at least 2.
    """
    count = len(gaps)
    ratio = float(gaps.sum() / weights.sum())
    residuals = gaps - ratio * weights
    square = float((residuals**2).mean())
    if square == 0:
        return Inference(low=ratio, high=ratio, p=1.0 if ratio == 0 else 0.0)
    skewness = float((residuals**3).mean()) / square**1.5
    # The ratio's standard error times sqrt(n).
    scale = math.sqrt(square * count / (count - 1)) / float(weights.mean())
    width = critical_value(SIGNIFICANCE_LEVEL, count - 1) / math.sqrt(count)
    transformed = _transform(ratio / scale, skewness, count)
    return Inference(
        low=ratio - scale * _inverse(width, skewness, count),
        high=ratio - scale * _inverse(-width, skewness, count),
        p=two_sided_p(transformed * math.sqrt(count), count - 1),
    )


def _transform(value: float, skewness: float, count: int) -> float:
    if abs(skewness) < _NO_SKEWNESS:
        return value
    cubic = value + skewness * value**2 / 3 + skewness**2 * value**3 / 27
    return cubic + skewness / (6 * count)


def _inverse(value: float, skewness: float, count: int) -> float:
    if abs(skewness) < _NO_SKEWNESS:
        return value
    root = np.cbrt(1 + skewness * (value - skewness / (6 * count)))
    return float(3 / skewness * (root - 1))
