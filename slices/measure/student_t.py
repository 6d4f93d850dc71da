"""Student's t distribution of whole degrees of freedom, from its finite series; needs no scipy."""

import math
from functools import lru_cache

import numpy as np

_BISECTIONS = 80  # halvings of [0, _LARGEST]: down to the spacing of float64
_LARGEST = 1e6


def two_sided_p(t: float, freedom: int) -> float:
    """The probability that |t| is at least this large (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).

    Args:
        freedom: degrees of freedom, at least 1.
    """
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    steps = np.arange(1, (freedom - odd) // 2, dtype=np.float64)
    factors = cosine**2 * (2 * steps - 1 + odd) / (2 * steps + odd)
    series = 1 + float(np.cumprod(factors).sum())
    if not odd:
        return max(0.0, 1 - sine * series)
    inside = angle + (sine * cosine * series if freedom > 1 else 0.0)
    return max(0.0, 1 - 2 / math.pi * inside)


@lru_cache
def critical_value(level: float, freedom: int) -> float:
    """The t whose two-sided p is `level`."""
    low, high = 0.0, _LARGEST
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(middle, freedom) > level else (low, middle)
    return (low + high) / 2
