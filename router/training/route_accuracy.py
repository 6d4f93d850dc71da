"""Accuracy of routed decisions and of forced choice, with standard errors.

A routed decision is correct where it names the label's expert, or the generalist for the labels `ood` and
`general`. Forced choice is the likeliest class, whether or not it would be acted on.
"""

from dataclasses import dataclass

from router.routing.model import GENERAL
from router.training.decisions import RoutedQueries
from router.training.metrics import wilson_stderr

MIN_GROUP = 10  # queries, below which an accuracy is marked as uncertain


@dataclass(frozen=True)
class ForcedAccuracy:
    """Accuracy of the likeliest class over n rows, with the Wilson standard error.

    `note`: why to doubt it, None without a reason.
    """

    n: int
    accuracy: float
    stderr: float
    note: str | None


@dataclass(frozen=True)
class RoutedAccuracy:
    """Accuracy of routed decisions over n rows, with the Wilson standard error.

    Attributes:
        to_generalist: share of experts' own queries that fell back to the generalist; None without any.
        wrong_expert: share of all rows that went to an expert of another domain.
        note: why to doubt the figures, None without a reason.
    """

    n: int
    accuracy: float
    stderr: float
    to_generalist: float | None
    wrong_expert: float
    note: str | None


def routed_accuracy(routed: RoutedQueries) -> RoutedAccuracy:
    """Accuracy of the decisions for one query or more."""
    accuracy, fell_back = float(routed.correct.mean()), routed.experts == GENERAL
    return RoutedAccuracy(
        n=len(routed),
        accuracy=accuracy,
        stderr=wilson_stderr(accuracy, len(routed)),
        to_generalist=float(fell_back[routed.has_expert].mean()) if routed.has_expert.any() else None,
        wrong_expert=float((~routed.correct & ~fell_back).mean()),
        note=_note(len(routed)),
    )


def forced_accuracy(routed: RoutedQueries) -> ForcedAccuracy:
    """Accuracy of the likeliest classes of one query or more, none of them out-of-domain."""
    accuracy = float((routed.likeliest == routed.labels).mean())
    return ForcedAccuracy(
        n=len(routed),
        accuracy=accuracy,
        stderr=wilson_stderr(accuracy, len(routed)),
        note=_note(len(routed)),
    )


def _note(count: int) -> str | None:
    return f"fewer than {MIN_GROUP} queries" if count < MIN_GROUP else None
