"""Distributions of paired gaps whose ratio of sums has mean zero and whose scale is one."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator

from slices.measure.sign_flip import Values

Draw = Callable[[Generator, int], tuple[Values, Values]]  # (random, documents) -> gaps, weights; (documents,)


def equal_weights(gaps: Callable[[Generator, int], Values]) -> Draw:
    """Gaps of documents of the same length."""
    return lambda random, count: (gaps(random, count), np.ones(count))


def by_length(gaps: Callable[[Generator, int], Values]) -> Draw:
    """Gaps in proportion to lognormal lengths of documents."""

    def draw(random: Generator, count: int) -> tuple[Values, Values]:
        lengths = random.lognormal(0, 1, count)
        return lengths * gaps(random, count), lengths

    return draw


def normal(random: Generator, count: int) -> Values:
    """Of the standard normal distribution."""
    return random.normal(size=count)


def student_t3(random: Generator, count: int) -> Values:
    """Of Student's t with 3 degrees of freedom, whose variance is 3."""
    return np.asarray(random.standard_t(3, count) / np.sqrt(3))


def exponential(random: Generator, count: int) -> Values:
    """Exponential, less their mean; skewness 2."""
    return random.exponential(size=count) - 1


def lognormal(random: Generator, count: int) -> Values:
    """Lognormal, less their mean; skewness 6.2."""
    variance = (np.e - 1) * np.e
    return np.asarray((random.lognormal(0, 1, count) - np.exp(0.5)) / np.sqrt(variance))


NULLS: Mapping[str, Draw] = {
    "normal": equal_weights(normal),
    "t, 3 degrees of freedom": equal_weights(student_t3),
    "normal, by length": by_length(normal),
    "exponential": equal_weights(exponential),
    "exponential, by length": by_length(exponential),
    "lognormal": equal_weights(lognormal),
}
SYMMETRIC = ("normal", "t, 3 degrees of freedom", "normal, by length")
