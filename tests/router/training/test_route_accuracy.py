"""Accuracy of routed decisions and forced choice, on hand-computed cases."""

import numpy as np
import pytest

from router.training.dataset import LabelledQuery
from router.training.decisions import RoutedQueries
from router.training.metrics import wilson_stderr
from router.training.route_accuracy import forced_accuracy, routed_accuracy

# label, chosen expert, likeliest class, form
CASES = [
    ("law", "law", "law", "short"),
    ("law", "general", "law", "short"),
    ("law", "math", "math", "question"),
    ("law", "general", "math", None),
    ("general", "general", "general", "question"),
    ("general", "law", "law", "question"),
    ("ood", "general", "math", "short"),
    ("ood", "math", "math", "question"),
]


def routed_queries() -> RoutedQueries:
    labels, experts, likeliest, forms = zip(*CASES, strict=True)
    return RoutedQueries(
        queries=tuple(
            LabelledQuery("a", label, form=form) for label, form in zip(labels, forms, strict=True)
        ),
        labels=np.array(labels),
        experts=np.array(experts),
        likeliest=np.array(likeliest),
        confidence=np.full(8, 0.5),
        in_domain=np.full(8, 0.5),
        decided_by=np.full(8, "hash"),
    )


def test_routed_accuracy_counts_both_kinds_of_error() -> None:
    """Right: one law, one general, one ood. Wrong experts: one of each label."""
    measured = routed_accuracy(routed_queries())
    assert (measured.n, measured.accuracy, measured.to_generalist, measured.wrong_expert) == (
        8,
        3 / 8,
        2 / 4,
        3 / 8,
    )
    assert measured.stderr == pytest.approx(wilson_stderr(3 / 8, 8))
    assert measured.note == "fewer than 10 queries"


def test_forced_choice_ignores_the_decision() -> None:
    routed = routed_queries()
    measured = forced_accuracy(routed.where(routed.labels != "ood"))
    assert (measured.n, measured.accuracy) == (6, 3 / 6)


def test_groups_leave_out_rows_of_none() -> None:
    groups = routed_queries().by_group(lambda query: query.form, routed_accuracy)
    assert {name: (each.n, each.accuracy) for name, each in groups.items()} == {
        "question": (4, 1 / 4),
        "short": (3, 2 / 3),
    }
    assert list(groups) == ["question", "short"]
    domains = routed_queries().by_group(lambda query: query.domain, routed_accuracy)
    assert domains["ood"].to_generalist is None and domains["ood"].accuracy == 1 / 2


def test_large_groups_have_no_note() -> None:
    routed = routed_queries()
    twice = np.concatenate([np.arange(8), np.arange(2)])
    ten = RoutedQueries(
        queries=tuple(routed.queries[row] for row in twice),
        labels=routed.labels[twice],
        experts=routed.experts[twice],
        likeliest=routed.likeliest[twice],
        confidence=routed.confidence[twice],
        in_domain=routed.in_domain[twice],
        decided_by=routed.decided_by[twice],
    )
    assert routed_accuracy(ten).note is None
    assert routed_accuracy(ten).n == 10


def test_wilson_error_is_the_binomial_one_for_many_trials_and_never_zero() -> None:
    assert wilson_stderr(0.3, 100_000) == pytest.approx(np.sqrt(0.3 * 0.7 / 100_000), rel=1e-4)
    assert wilson_stderr(1.0, 4) == pytest.approx(0.1)  # sqrt(1 / 64) / 1.25
    assert wilson_stderr(1.0, 4) > wilson_stderr(1.0, 40) > 0
