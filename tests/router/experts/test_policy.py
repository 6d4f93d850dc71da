"""Assignment of domains by planted figures."""

from router.experts.measurements import ExpertMeasurements
from router.experts.policy import Assignment, Objective, Policy, assign
from slices.estimate import Estimate
from slices.manifest import BITS


def model(size: int, bits: float, speed: float | None = None) -> ExpertMeasurements:
    text = ("law", BITS, "text-1")
    return ExpertMeasurements(
        bytes=size,
        estimates={text: Estimate(bits, 0.0)},
        parent_estimates={text: Estimate(1.0, 0.0)},
        decode_tokens_per_second=speed,
    )


def test_quality_takes_the_domains_own_expert() -> None:
    models = {"lex": model(9, 1.5), "gen": model(99, 1.0)}
    assert assign("law", "lex", models, "gen", Policy()) == Assignment("lex")


def test_cost_takes_the_smallest_that_is_good_enough() -> None:
    models = {
        "lex": model(50, 1.02),
        "bio": model(20, 1.04),
        "tiny": model(5, 1.2),
        "gen": model(99, 1.0),
    }
    assert assign("law", "lex", models, "gen", Policy(Objective.COST, 0.05)) == Assignment("bio")
    assert assign("law", "lex", models, "gen", Policy(Objective.COST, 0.03)) == Assignment("lex")
    found = assign("law", "lex", models, "gen", Policy(Objective.COST, 0.01))
    assert found.expert is None
    assert "the generalist is the smallest within 1% of the parent" in found.reason


def test_latency_takes_the_fastest_that_is_good_enough() -> None:
    models = {
        "lex": model(50, 1.02, 10.0),
        "bio": model(20, 1.04, 30.0),
        "gen": model(99, 1.0, 20.0),
    }
    assert assign("law", "lex", models, "gen", Policy(Objective.LATENCY, 0.05)) == Assignment("bio")
    assert assign("law", "lex", models, "gen", Policy(Objective.LATENCY, 0.03)).expert is None


def test_what_was_never_measured_keeps_its_domain_under_every_policy() -> None:
    models = {"lex": ExpertMeasurements(9), "gen": ExpertMeasurements(9)}
    for prefer in Objective:
        assert assign("law", "lex", models, "gen", Policy(prefer)) == Assignment("lex")
