"""Simulated nulls in small: the tests of differences keep their level, the one that they replaced did not."""

from functools import cache

import numpy as np
import pytest

from benchmarks.statistics.methods import BEFORE, FLIP, METHODS, NOW, SKEW, p_values
from benchmarks.statistics.null import family, rejected, single
from benchmarks.statistics.nulls import NULLS, SYMMETRIC
from slices.measure.paired import paired_difference

MOST = 0.06  # of nulls rejected at 5 %


@cache
def false_positives(null: str, documents: int) -> dict[str, float]:
    """By method; the standard error of 5 % is 0.7 %."""
    return {name: float(each.mean()) for name, each in rejected(null, documents, 1000).items()}


@pytest.mark.parametrize("null", SYMMETRIC)
def test_at_most_6_percent_of_nulls_are_rejected_at_5(null: str) -> None:
    found = false_positives(null, 10)
    assert found[NOW] <= MOST < 0.08 < found[BEFORE]


def test_skewed_gaps_need_the_skewness_correction() -> None:
    found = false_positives("exponential", 10)
    assert found[NOW] <= MOST < 0.07 < found[FLIP]


@pytest.mark.parametrize("documents", [20, 50])
def test_many_documents(documents: int) -> None:
    both = {name: METHODS[name] for name in (FLIP, SKEW)}
    assert rejected("normal, by length", documents, 4000, methods=both)[NOW].mean() <= MOST


def test_the_real_test_rejects_as_few() -> None:
    """Not the benchmark's many at once, but `paired_difference` itself."""
    random, rejections = np.random.default_rng(0), 0
    for seed in range(1000):
        gaps, weights = NULLS["normal, by length"](random, 10)
        rejections += paired_difference(gaps, np.zeros(10), weights, seed).significant
    assert rejections <= MOST * 1000


def test_among_a_hundred_comparisons_a_real_difference_is_found_and_rarely_another() -> None:
    rows = {row["method"]: row for row in family("normal", 20, 20)}
    assert rows[BEFORE]["power"] == 0  # the least p of 2,000 resamples is above 5 % / 100
    assert rows[NOW]["power"] > 0.7
    assert rows[NOW]["false_positives"] <= 0.1  # one of 20 families is expected at most


@pytest.mark.parametrize("null", list(NULLS))
def test_nulls_have_mean_zero(null: str) -> None:
    gaps, weights = NULLS[null](np.random.default_rng(0), 400_000)
    assert abs(gaps.sum() / weights.sum()) < 0.01
    assert (gaps / weights).std() == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(("documents", "tolerance"), [(9, 1e-12), (20, 0.02)])
def test_many_at_once_have_the_p_values_of_the_real_test(documents: int, tolerance: float) -> None:
    random = np.random.default_rng(1)
    drawn = [NULLS["exponential, by length"](random, documents) for _ in range(40)]
    gaps, weights = (np.array(each) for each in zip(*drawn, strict=True))
    gaps += 0.5 * weights
    found = p_values(gaps, weights, 1.0, random)[NOW]
    for number, (each, weight) in enumerate(zip(gaps, weights, strict=True)):
        real = paired_difference(each, np.zeros(documents), weight).p
        assert real == pytest.approx(found[number], abs=tolerance)


def test_few_documents_are_tested_by_nothing_but_what_was_replaced() -> None:
    assert [row["method"] for row in single("normal", 7, 10)] == [BEFORE]
    assert {row["method"] for row in single("normal", 8, 10)} == {*METHODS, NOW}
