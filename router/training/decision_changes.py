"""What a new router decides differently from an old one, as if every domain had an expert."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.training.decisions import RoutedQueries


@dataclass(frozen=True)
class DecisionChange:
    """A query that another expert gets now; `before` and `after` are domains, `general` the generalist."""

    query: str
    label: str
    before: str
    after: str


@dataclass(frozen=True)
class DecisionChanges:
    """Decisions on n labelled queries before and after: how many changed, and the shares that are right."""

    n: int
    changed: int
    right_before: float
    right_after: float


def summarize_changes(before: RoutedQueries, after: RoutedQueries) -> DecisionChanges:
    """The counts of changes on the same queries, of which there is at least one."""
    return DecisionChanges(
        n=len(before),
        changed=int((before.experts != after.experts).sum()),
        right_before=float(before.correct.mean()),
        right_after=float(after.correct.mean()),
    )


def list_changes(before: RoutedQueries, after: RoutedQueries) -> list[DecisionChange]:
    """Each change, in the order of the queries."""
    rows: Sequence[int] = np.flatnonzero(before.experts != after.experts).tolist()
    return [
        DecisionChange(
            query=before.queries[row].text,
            label=before.queries[row].domain,
            before=str(before.experts[row]),
            after=str(after.experts[row]),
        )
        for row in rows
    ]
