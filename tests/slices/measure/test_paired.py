"""Paired differences: planted ones are found, absent ones are not, and errors are what they say."""

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from slices.measure.paired import bootstrap, holm, mcnemar


def test_the_bootstrap_finds_a_planted_difference_and_no_other() -> None:
    random = np.random.default_rng(1)
    bytes_, base = random.uniform(500, 3000, 60), random.normal(1, 0.2, 60)
    theirs = base * bytes_
    found = bootstrap(theirs + 0.05 * bytes_ + random.normal(0, 20, 60), theirs, bytes_)
    assert found.low < 0.05 < found.high
    assert found.p < 0.01
    same = bootstrap(theirs, theirs, bytes_)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_its_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        gaps, weights = random.normal(0.3, 1, 40), np.ones(40)
        found = bootstrap(gaps, np.zeros(40), weights, seed)
        covered += found.low <= 0.3 <= found.high
    assert 0.88 <= covered / 200 <= 0.98


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (9, 1), (3, 5), (0, 12)])
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    ours = np.array([True] * gained + [False] * lost + [True] * 30)
    theirs = np.array([False] * gained + [True] * lost + [True] * 30)
    found = mcnemar(ours, theirs)
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert found.p == pytest.approx(expected)
    assert found.value == pytest.approx((gained - lost) / len(ours))


def test_holm_is_the_step_down_method() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
