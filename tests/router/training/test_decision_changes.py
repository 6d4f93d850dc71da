"""What another router decides differently, by hand."""

import numpy as np
from numpy.typing import NDArray

from router.training.dataset import LabelledQuery
from router.training.decision_changes import DecisionChange, DecisionChanges, list_changes, summarize_changes
from router.training.decisions import RoutedQueries

LABELS = ["law", "math", "general", "law"]


def decided(*experts: str) -> RoutedQueries:
    scores: NDArray[np.float64] = np.zeros(len(LABELS))
    return RoutedQueries(
        queries=tuple(LabelledQuery(f"query {at}", label) for at, label in enumerate(LABELS)),
        labels=np.array(LABELS),
        experts=np.array(experts),
        likeliest=np.array(experts),
        confidence=scores,
        in_domain=scores,
        decided_by=np.full(len(LABELS), "hash"),
    )


def test_changes_for_better_and_worse() -> None:
    before, after = decided("law", "law", "general", "math"), decided("law", "math", "law", "math")
    assert summarize_changes(before, after) == DecisionChanges(4, 2, right_before=0.5, right_after=0.5)
    assert list_changes(before, after) == [
        DecisionChange("query 1", "math", "law", "math"),
        DecisionChange("query 2", "general", "general", "law"),
    ]
    assert list_changes(before, before) == []
