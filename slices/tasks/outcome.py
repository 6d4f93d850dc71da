"""What a model got right of a task, item by item, so that two models can be compared on the same items."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slices.estimate import Estimate


@dataclass(frozen=True)
class Outcome:
    """`scores` by item, 1 for right and 0 for wrong, shape (items,). `data` is the items' sha256."""

    task: str
    scores: NDArray[np.float64]
    data: str

    @property
    def share(self) -> Estimate:
        """The mean, and its standard error over items."""
        count = len(self.scores)
        spread = float(self.scores.std(ddof=1)) if count > 1 else 0.0
        return Estimate(float(self.scores.mean()), spread / count**0.5)
