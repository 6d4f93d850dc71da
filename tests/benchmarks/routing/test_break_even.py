"""The simulated routers in small: accurate as asked, calibrated, and never worse than the generalist."""

import numpy as np
import pytest

from benchmarks.routing import break_even
from benchmarks.routing.break_even import (
    ALWAYS,
    ARGMAX,
    deciders,
    matrix,
    measured_costs,
    relative_bits,
    shares,
)
from router.training.metrics import expected_calibration_error
from slices.estimate import Estimate

DOMAINS = ("biochem", "law", "computing")
QUERIES = 2000


@pytest.mark.parametrize("accuracy", [0.7, 0.9])
def test_a_simulated_router_is_accurate_and_calibrated(accuracy: float) -> None:
    predictions, truth = break_even.simulated(accuracy, DOMAINS, QUERIES, seed=0)
    probabilities = np.stack([each.probabilities for each in predictions])
    right = np.array(DOMAINS)[probabilities.argmax(axis=1)] == np.array(truth)
    assert right.mean() == pytest.approx(accuracy, abs=0.01)
    assert expected_calibration_error(probabilities.max(axis=1), right) < 0.03


def test_the_measured_costs() -> None:
    costs = measured_costs()
    assert set(costs) == {(of, on) for of in DOMAINS for on in DOMAINS}
    assert costs["computing", "computing"].value == pytest.approx(-0.042, abs=0.001)
    assert min(costs[of, on].value for of in DOMAINS for on in DOMAINS if of != on) > 0.5
    pessimistic = matrix(costs, 1.0)
    assert pessimistic.at("law", "law") == pytest.approx(
        costs["law", "law"].value + costs["law", "law"].stderr
    )


@pytest.mark.parametrize("accuracy", [0.7, 0.9, 1.0])
def test_expected_cost_is_no_worse_than_the_generalist(accuracy: float) -> None:
    costs = measured_costs()
    sample = break_even.simulated(accuracy, DOMAINS, QUERIES, seed=1)
    found = {
        name: relative_bits(shares(*sample, *way, costs), costs).value
        for name, way in deciders(costs).items()
    }
    assert found["expected cost"] <= 0
    assert found["expected cost"] <= found[ARGMAX]
    assert (found[ARGMAX] > 0) == (accuracy < 1)


def test_mean_bits_by_hand() -> None:
    costs = {("law", "law"): Estimate(-0.1, 0.03), ("law", "math"): Estimate(0.5, 0.04)}
    found = relative_bits({("law", "law"): 0.6, ("law", "math"): 0.2}, costs)
    assert found.value == pytest.approx(0.04)
    assert found.stderr == pytest.approx(((0.6 * 0.03) ** 2 + (0.2 * 0.04) ** 2) ** 0.5)
    assert ALWAYS.min_confidence == 0
