"""Scores of a task by item, so that two models are compared on the same items."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slices.estimate import Estimate


@dataclass(frozen=True)
class ItemScores:
    """Scores of one task, float64 of shape (items,): 1 for a right answer, 0 for a wrong one.

    `data_sha256` identifies the items.
    """

    task: str
    scores: NDArray[np.float64]
    data_sha256: str

    @property
    def mean(self) -> Estimate:
        """The mean score, with its standard error over items."""
        count = len(self.scores)
        deviation = float(self.scores.std(ddof=1)) if count > 1 else 0.0
        return Estimate(float(self.scores.mean()), deviation / count**0.5)
