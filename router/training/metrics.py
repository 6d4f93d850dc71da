"""What judges a router, as pure functions of arrays: calibration, separation, coverage."""

import numpy as np
from numpy.typing import NDArray

BINS = 15


def auroc(scores: NDArray[np.float64], high: NDArray[np.bool_], low: NDArray[np.bool_]) -> float | None:
    """The chance that a row of `high` scores above one of `low`, ties half; None if either is empty."""
    if not high.any() or not low.any():
        return None
    ordered = np.sort(scores[low])
    below = np.searchsorted(ordered, scores[high], "left")
    not_above = np.searchsorted(ordered, scores[high], "right")
    return float((below + not_above).mean() / 2 / len(ordered))


def recall_at(
    scores: NDArray[np.float64], high: NDArray[np.bool_], low: NDArray[np.bool_], accepted: float
) -> float | None:
    """The share of `low` below the score that lets the share `accepted` of `high` pass; None without both."""
    if not high.any() or not low.any():
        return None
    return float((scores[low] < np.quantile(scores[high], 1 - accepted)).mean())


def calibration_error(sure: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Mean gap of stated and true accuracy over `bins` equal bins of confidence: ECE, Guo et al. 2017."""
    gaps = [each["n"] * abs(each["confidence"] - each["accuracy"]) for each in reliability(sure, right, bins)]
    return float(sum(gaps) / len(sure))


def coverage(sure: NDArray[np.float64], right: NDArray[np.bool_]) -> list[dict[str, float]]:
    """Accuracy of the surest tenth, two tenths, ... of all (the coverage-risk curve)."""
    by_surety = right[np.argsort(-sure, kind="stable")]
    shares = [share / 10 for share in range(1, 11)]
    counts = [max(1, round(share * len(right))) for share in shares]
    return [
        {"coverage": share, "accuracy": float(by_surety[:count].mean())}
        for share, count in zip(shares, counts, strict=True)
    ]


def reliability(
    sure: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS
) -> list[dict[str, float]]:
    """Stated and true accuracy of every bin of confidence that holds a query, and how many it holds."""
    bin_of = np.minimum((sure * bins).astype(int), bins - 1)
    return [
        {
            "confidence": float(sure[bin_of == b].mean()),
            "accuracy": float(right[bin_of == b].mean()),
            "n": int((bin_of == b).sum()),
        }
        for b in sorted(set(bin_of))
    ]
