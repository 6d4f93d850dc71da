"""Metrics of a router as pure functions of arrays: calibration, out-of-domain detection, coverage."""

import numpy as np
from numpy.typing import NDArray

BINS = 15


def auroc(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], negative: NDArray[np.bool_]
) -> float | None:
    """Area under the ROC curve: P(a positive scores above a negative), ties half; None if either is empty."""
    if not positive.any() or not negative.any():
        return None
    ordered = np.sort(scores[negative])
    below = np.searchsorted(ordered, scores[positive], "left")
    not_above = np.searchsorted(ordered, scores[positive], "right")
    return float((below + not_above).mean() / 2 / len(ordered))


def ood_recall_at(
    scores: NDArray[np.float64], in_domain: NDArray[np.bool_], ood: NDArray[np.bool_], acceptance: float
) -> float | None:
    """Recall of out-of-domain rows at the threshold that accepts the share `acceptance` of in-domain ones."""
    if not in_domain.any() or not ood.any():
        return None
    return float((scores[ood] < np.quantile(scores[in_domain], 1 - acceptance)).mean())


def wilson_stderr(share: float, count: int) -> float:
    """Standard error of a share of `count` trials: the half-width of its Wilson score interval at z = 1.

    Unlike the binomial one it is not 0 where all trials agree (Wilson, 1927; Brown, Cai and DasGupta, 2001).
    """
    return float(np.sqrt(share * (1 - share) / count + 1 / (4 * count**2)) / (1 + 1 / count))


def expected_calibration_error(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = BINS
) -> float:
    """Mean gap of confidence and accuracy over `bins` equal-width bins (ECE, Guo et al., 2017)."""
    gaps = [
        each["n"] * abs(each["confidence"] - each["accuracy"])
        for each in reliability(confidence, correct, bins)
    ]
    return float(sum(gaps) / len(confidence))


def coverage(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> list[dict[str, float]]:
    """Accuracy at coverage .1, .2, ... 1, the most confident first (the risk-coverage curve)."""
    ranked = correct[np.argsort(-confidence, kind="stable")]
    shares = [share / 10 for share in range(1, 11)]
    counts = [max(1, round(share * len(correct))) for share in shares]
    return [
        {"coverage": share, "accuracy": float(ranked[:count].mean())}
        for share, count in zip(shares, counts, strict=True)
    ]


def reliability(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = BINS
) -> list[dict[str, float]]:
    """Mean confidence, accuracy and count of every non-empty confidence bin (the reliability diagram)."""
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "confidence": float(confidence[bin_of == b].mean()),
            "accuracy": float(correct[bin_of == b].mean()),
            "n": int((bin_of == b).sum()),
        }
        for b in sorted(set(bin_of))
    ]
