"""Simulated nulls in small: the tests of differences keep their level, the one that they replaced did not."""

import numpy as np
import pytest

from benchmarks.statistics.methods import BEFORE, METHODS, NOW, methods_for
from benchmarks.statistics.null import family, rejected
from benchmarks.statistics.nulls import NULLS, SYMMETRIC
from slices.measure.paired import paired_difference

LEVEL, MOST = 0.05, 0.06


def false_positives(method: str, null: str, documents: int, count: int = 1000) -> float:
    return float(rejected(METHODS[method], null, documents, count, LEVEL).mean())


@pytest.mark.parametrize("null", SYMMETRIC)
def test_at_most_6_percent_of_nulls_are_rejected_at_5(null: str) -> None:
    assert false_positives(NOW, null, 10) <= MOST < 0.08 < false_positives(BEFORE, null, 10)


def test_skewed_gaps_need_the_skewness_correction() -> None:
    null = "exponential"
    assert false_positives(NOW, null, 10) <= MOST < 0.08 < false_positives("sign flip", null, 10)


@pytest.mark.parametrize("documents", [20, 50])
def test_many_documents(documents: int) -> None:
    assert false_positives(NOW, "normal, by length", documents) <= MOST


def test_among_a_hundred_comparisons_a_real_difference_is_found_and_rarely_another() -> None:
    rows = {row["method"]: row for row in family("normal", 20, 20, (BEFORE, NOW))}
    assert rows[BEFORE]["power"] == 0  # the least p of 2,000 resamples is above 5 % / 100
    assert rows[NOW]["power"] > 0.7
    assert rows[NOW]["false_positives"] <= 0.1  # one of 20 families is expected at most


@pytest.mark.parametrize("null", list(NULLS))
def test_nulls_have_mean_zero(null: str) -> None:
    gaps, weights = NULLS[null](np.random.default_rng(0), 400_000)
    assert abs(gaps.sum() / weights.sum()) < 0.01
    assert (gaps / weights).std() == pytest.approx(1, abs=0.06)


def test_the_shortcut_of_the_benchmark_decides_as_the_real_test() -> None:
    random = np.random.default_rng(1)
    for seed in range(100):
        gaps, weights = NULLS["exponential, by length"](random, 9)
        gaps = gaps + 0.8 * weights
        real = paired_difference(gaps, np.zeros(9), weights, seed).significant
        assert real == (METHODS[NOW](gaps, weights, seed, LEVEL) < LEVEL)


def test_few_documents_are_tested_by_nothing_but_what_was_replaced() -> None:
    assert set(methods_for(7)) == {BEFORE}
    assert methods_for(8) == METHODS
