"""Paired differences: planted ones are found, absent ones are not, and errors are what they say."""

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from slices.measure.paired import MIN_DOCUMENTS, corrected, holm, mcnemar, paired_difference


def test_a_planted_difference_is_found_and_no_other() -> None:
    random = np.random.default_rng(1)
    bytes_, base = random.uniform(500, 3000, 60), random.normal(1, 0.2, 60)
    theirs = base * bytes_
    found = paired_difference(theirs + 0.05 * bytes_ + random.normal(0, 20, 60), theirs, bytes_)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.05 < found.high
    assert found.significant
    same = paired_difference(theirs, theirs, bytes_)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("count", [8, 10, 12])
def test_its_interval_covers_as_often_as_it_says(count: int) -> None:
    random, covered = np.random.default_rng(2), 0
    for seed in range(200):
        found = paired_difference(random.normal(0.3, 1, count), np.zeros(count), np.ones(count), seed)
        assert found.low is not None
        assert found.high is not None
        assert found.significant == (not found.low <= 0 <= found.high)
        covered += found.low <= 0.3 <= found.high
    assert 0.92 <= covered / 200 <= 0.99


def test_below_the_least_number_nothing_is_known() -> None:
    ones = np.ones(MIN_DOCUMENTS - 1)
    right = np.ones(MIN_DOCUMENTS - 1, dtype=bool)
    for few in (paired_difference(9 * ones, ones, ones), mcnemar(right, ~right)):
        assert (few.low, few.high, few.p, few.n, few.significant) == (None, None, None, 7, False)
    assert paired_difference(9 * ones, ones, ones).value == 8
    enough = np.ones(MIN_DOCUMENTS)
    assert paired_difference(9 * enough, enough, enough).significant


def test_a_real_difference_is_significant_among_a_hundred_comparisons() -> None:
    random, ones = np.random.default_rng(3), np.ones(20)
    gaps = [random.normal(size=20) for _ in range(99)] + [random.normal(3, 1, 20)]
    found = corrected({n: paired_difference(each, 0 * ones, ones) for n, each in enumerate(gaps)})
    assert [n for n, each in found.items() if each.significant] == [99]


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (9, 1), (3, 5), (0, 12)])
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    ours = np.array([True] * gained + [False] * lost + [True] * 30)
    theirs = np.array([False] * gained + [True] * lost + [True] * 30)
    found = mcnemar(ours, theirs)
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert found.p == pytest.approx(expected)
    assert found.value == pytest.approx((gained - lost) / len(ours))
    assert found.low is not None
    assert found.high is not None
    assert found.significant == (not found.low <= 0 <= found.high)


def test_mcnemar_is_the_sign_flip_test_of_right_and_wrong() -> None:
    ours, theirs = np.array([True] * 7 + [False] * 5), np.array([False] * 6 + [True] * 6)
    gaps = ours.astype(float) - theirs
    flips = np.array(np.meshgrid(*[(-1, 1)] * 12)).reshape(12, -1)
    assert mcnemar(ours, theirs).p == pytest.approx((np.abs(gaps @ flips) >= abs(gaps.sum())).mean())


def test_holm_is_the_step_down_method() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_counts_only_what_is_known() -> None:
    assert holm([None, 0.01, None, 0.04]) == [None, pytest.approx(0.02), None, pytest.approx(0.04)]
