"""Goals of a ladder, and the trial that each chooses."""

import numpy as np
import pytest

from slices.errors import BadConfig
from slices.estimate import Estimate
from slices.measure.divergence import Divergence, DocumentSums, Quantiles
from slices.measure.quant_trials import Goal, QuantTrial, choose_trial, goal_not_met


def trial(type: str, nbytes: int, kl: float, goal: Goal) -> QuantTrial:
    """A trial as if it had been measured."""
    found, none = Estimate(kl, kl / 10), np.zeros(0)
    measured = Divergence(
        name=type,
        reference="bf16",
        kl=found,
        kl_first_piece=found,
        kl_quantiles=Quantiles(median=kl, p99=9 * kl, p999=9 * kl, max=9 * kl),
        kl_sampled_tokens=0,
        same_top1=found,
        bits_per_byte=found,
        reference_bits_per_byte=found,
        against=found,
        perplexity_ratio=found,
        lost_mass=None,
        tokens=9,
        data="",
        sums=DocumentSums(
            bytes=none,
            tokens=none,
            kl=none,
            kl_first_piece=none,
            same=none,
            lost=none,
            bits=none,
            reference_bits=none,
        ),
    )
    return QuantTrial(
        type=type,
        bytes=nbytes,
        bits_per_weight=4.0,
        passes=goal.passes(found),
        measured=measured,
        seconds=1.0,
    )


MEASURED = [("A", 100, 0.5), ("B", 200, 0.1), ("C", 300, 0.2), ("D", 400, 0.01)]


@pytest.mark.parametrize(
    ("goal", "wanted"),
    [
        (Goal(max_kl=0.5), "A"),  # the limit itself passes
        (Goal(max_kl=0.2), "B"),
        (Goal(max_kl=0.05), "D"),
        (Goal(max_kl=0.001), None),
        (Goal(budget=400), "D"),
        (Goal(budget=399), "B"),  # C is bigger and worse
        (Goal(budget=100), "A"),
        (Goal(budget=99), None),
        (Goal(max_kl=0.3, budget=399), "B"),
        (Goal(max_kl=0.05, budget=399), None),
    ],
)
def test_choice(goal: Goal, wanted: str | None) -> None:
    found = choose_trial([trial(*each, goal) for each in MEASURED], goal)
    assert (found.type if found else None) == wanted


def test_goals_are_checked_and_reported() -> None:
    for bad in ({}, {"max_kl": 0.0}, {"max_kl": float("nan")}, {"max_kl": float("inf")}, {"budget": 0}):
        with pytest.raises(BadConfig, match=r"--max-kl|--budget"):
            Goal(**bad)
    goal = Goal(max_kl=0.05, budget=399)
    assert str(goal) == "a mean KL of at most 0.05 nat a token in at most 399 bytes"
    message = str(goal_not_met([trial(*each, goal) for each in MEASURED[:3]], goal, {}))
    assert (
        "the best of 3 measured is B, 200 bytes, with a mean KL of 0.1 ± 0.01 (99th percentile 0.9)"
        in message
    )
    assert "the smallest, A, takes 1,000" in str(goal_not_met([], goal, {"B": 2000, "A": 1000}))
