"""The sign-flip test and its interval against their definitions."""

from itertools import combinations, product

import numpy as np
import pytest

from slices.measure.sign_flip import SUBSETS, Values, sign_flip, subset_ratios


def example(count: int, shift: float = 0.0, seed: int = 0) -> tuple[Values, Values]:
    random = np.random.default_rng(seed)
    weights = random.uniform(500, 3000, count)
    return weights * random.normal(shift, 1, count), weights


def test_the_p_value_is_the_share_of_sign_flips_at_least_as_far() -> None:
    gaps, weights = example(9, shift=0.7)
    flips = np.array(list(product((-1, 1), repeat=9)))
    sums = flips @ gaps
    assert sign_flip(gaps, weights).p == pytest.approx((np.abs(sums) >= abs(gaps.sum()) - 1e-9).mean())


@pytest.mark.parametrize("count", [6, 8, 11])
def test_few_documents_are_enumerated(count: int) -> None:
    gaps, weights = example(count)
    subsets = [list(each) for size in range(1, count + 1) for each in combinations(range(count), size)]
    expected = sorted(gaps[each].sum() / weights[each].sum() for each in subsets)
    assert sorted(subset_ratios(gaps, weights)) == pytest.approx(expected)


def test_many_documents_are_drawn_each_with_probability_a_half() -> None:
    ratios = subset_ratios(np.arange(1.0, 21.0), np.ones(20), seed=3)
    assert SUBSETS - 20 < len(ratios) <= SUBSETS
    assert ratios.mean() == pytest.approx(10.5, abs=0.02)
    assert (subset_ratios(*example(40), seed=1) == subset_ratios(*example(40), seed=1)).all()
    assert (subset_ratios(*example(40), seed=1) != subset_ratios(*example(40), seed=2)).any()


@pytest.mark.parametrize("count", [6, 8, 12, 25])
def test_zero_lies_outside_the_interval_where_p_is_below_5_percent(count: int) -> None:
    rejected = 0
    for seed in range(60):
        found = sign_flip(*example(count, shift=0.6, seed=seed))
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
        rejected += found.p < 0.05
    assert 0 < rejected < 60


def test_the_interval_moves_with_the_ratio() -> None:
    gaps, weights = example(10)
    here, there = sign_flip(gaps, weights), sign_flip(gaps + 0.25 * weights, weights)
    assert (there.low, there.high) == pytest.approx((here.low + 0.25, here.high + 0.25))
