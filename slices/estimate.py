"""A value with its standard error; ratios of sums over documents."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error."""

    value: float
    stderr: float


def ratio(numerators: Values, denominators: Values) -> Estimate:
    """Sum over sum, and the standard error of that ratio. Shapes (documents,), at least two."""
    count, total = len(numerators), float(denominators.sum())
    value = float(numerators.sum()) / total
    spread = float(((numerators - value * denominators) ** 2).sum())
    return Estimate(value, math.sqrt(count / (count - 1) * spread) / total)
