"""The t-test corrected for skewness: Student's where there is none, and its interval is its inverse."""

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from slices.measure.skewness_t import skewness_t


def test_without_skewness_it_is_students_test() -> None:
    gaps = np.array([-3.0, -2, -1, 0, 1, 2, 3]) + 0.7
    found, expected = skewness_t(gaps, np.ones(7)), stats.ttest_1samp(gaps, 0)
    interval = expected.confidence_interval()
    assert found == pytest.approx((interval.low, interval.high, expected.pvalue))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_interval_reaches_further_to_the_side_of_the_tail(sign: int) -> None:
    gaps = sign * np.random.default_rng(0).exponential(size=15)
    found = skewness_t(gaps, np.ones(15))
    longer, shorter = found.high - gaps.mean(), gaps.mean() - found.low
    assert longer > 1.3 * shorter if sign > 0 else shorter > 1.3 * longer


def test_zero_lies_outside_the_interval_where_p_is_below_5_percent() -> None:
    random, rejected = np.random.default_rng(1), 0
    for _ in range(200):
        weights = random.uniform(1, 3, 9)
        found = skewness_t(weights * (random.exponential(size=9) - 0.6), weights)
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
        rejected += found.p < 0.05
    assert 20 < rejected < 180


def test_gaps_that_are_all_the_same() -> None:
    assert skewness_t(np.ones(9), np.ones(9)) == (1, 1, 0)
    assert skewness_t(np.zeros(9), np.ones(9)) == (0, 0, 1)
