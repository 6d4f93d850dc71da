"""The choice by expected cost, and by thresholds where a cost was not measured."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.routing.cascade import RoutePrediction
from router.routing.decide import Decision, decide
from router.routing.expected_cost import CostMatrix, ModelCost
from router.routing.model import GENERAL, Thresholds
from router.routing.route import route

EXPERTS = {"law": "lex", "math": "calc"}
DOMAINS = ("law", "math", "music", GENERAL)
THRESHOLDS = Thresholds(min_confidence=0.5, min_margin=0.1, min_in_domain=0.05)


def prediction(probabilities: Mapping[str, float], in_domain: float = 0.5) -> RoutePrediction:
    return RoutePrediction(
        classes=tuple(probabilities),
        probabilities=np.array(list(probabilities.values())),
        in_domain=in_domain,
        distance=0.2,
        embedder="none",
    )


def likely(domain: str, probability: float) -> dict[str, float]:
    rest = (1 - probability) / (len(DOMAINS) - 1)
    return {each: probability if each == domain else rest for each in DOMAINS}


def cost(home: str, at_home: float, elsewhere: float | None = 0.5, note: str = "") -> ModelCost:
    return ModelCost(home=home, by_domain={home: at_home}, elsewhere=elsewhere, note=note)


MATRIX = CostMatrix({"lex": cost("law", -0.1), "calc": cost("math", 0.02)})


def ask(
    probabilities: Mapping[str, float],
    costs: CostMatrix = MATRIX,
    in_domain: float = 0.5,
) -> Decision:
    found = prediction(probabilities, in_domain)
    return decide(found, THRESHOLDS, EXPERTS, "gen", costs=costs)


costs = st.floats(-1, 2, allow_nan=False)
weights = st.lists(st.floats(0.001, 1), min_size=len(DOMAINS), max_size=len(DOMAINS))
rows = st.fixed_dictionaries(dict.fromkeys(DOMAINS, costs))


@given(weights=weights, lex=rows, calc=rows, in_domain=st.floats(0, 1))
def test_never_worse_in_expectation_than_the_generalist(
    weights: list[float], lex: dict[str, float], calc: dict[str, float], in_domain: float
) -> None:
    """And of what may be asked, none is better."""
    total = sum(weights)
    probabilities = {domain: each / total for domain, each in zip(DOMAINS, weights, strict=True)}
    matrix = CostMatrix({
        "lex": ModelCost(home="law", by_domain=lex, elsewhere=1.0),
        "calc": ModelCost(home="math", by_domain=calc, elsewhere=1.0),
    })  # fmt: skip
    decision = ask(probabilities, matrix, in_domain)
    expected = {
        name: sum(probabilities[domain] * row[domain] for domain in DOMAINS)
        for name, row in (("lex", lex), ("calc", calc))
    } | {"gen": 0.0}
    assert decision.costs == pytest.approx(expected)
    assert expected[decision.expert] <= 0
    ood = in_domain < THRESHOLDS.min_in_domain or decision.domain == GENERAL
    assert expected[decision.expert] == (0.0 if ood else pytest.approx(min(expected.values())))
    assert decision.fallback == (decision.expert == "gen")


def test_a_tie_goes_to_the_generalist() -> None:
    decision = ask(likely("law", 0.7), CostMatrix({"lex": ModelCost("law", {"law": 0.0}, 0.0)}))
    assert (decision.expert, decision.fallback) == ("gen", True)


def test_the_break_even_lies_between_two_probabilities() -> None:
    """-0.1 at home and +0.5 elsewhere: from five sixths on."""
    certain, unsure = ask(likely("law", 0.84)), ask(likely("law", 0.83))
    assert (certain.expert, unsure.expert) == ("lex", "gen")
    assert certain.reason.endswith("; expected cost -0.4%")
    assert unsure.reason == "law: probability 0.83, but the expected cost of lex is +0.2%"


def test_an_expert_that_costs_more_at_home_is_not_asked() -> None:
    decision = ask(likely("math", 0.99))
    assert (decision.expert, decision.domain) == ("gen", "math")
    assert "the expected cost of calc is +2.5%" in decision.reason


def test_thresholds_do_not_hold_for_what_is_measured() -> None:
    assert ask({"law": 0.45, "math": 0.44, GENERAL: 0.11}, CostMatrix({
        "lex": ModelCost("law", {"law": -0.3, "math": -0.1}, 0.2)
    })).expert == "lex"  # fmt: skip


def test_another_domains_expert_answers_where_it_costs_least() -> None:
    good_at_music = ModelCost("math", {"math": -0.1, "music": -0.2}, 0.1)
    decision = ask(likely("music", 0.9), CostMatrix({"lex": cost("law", -0.1), "calc": good_at_music}))
    assert (decision.expert, decision.domain, decision.fallback) == ("calc", "music", False)
    assert "calc has expected cost -17." in decision.reason


def test_the_generalist_gets_what_no_expert_is_for() -> None:
    cheap = CostMatrix({"lex": ModelCost("law", {"law": -0.5}, -0.5)})
    assert ask(likely("law", 0.9), cheap, in_domain=0.01).reason.startswith("out-of-domain")
    assert ask(likely(GENERAL, 0.6), cheap).reason.startswith("general question")


def test_thresholds_decide_for_an_expert_that_was_not_measured() -> None:
    unmeasured = CostMatrix({"calc": cost("math", -0.1)})
    asked, refused = ask(likely("law", 0.6), unmeasured), ask(likely("law", 0.4), unmeasured)
    assert (asked.expert, refused.expert) == ("lex", "gen")
    assert asked.reason.endswith("cost of lex not measured")
    assert refused.reason.startswith("low confidence")
    assert set(asked.costs) == {"gen", "calc"}


def test_a_generalist_that_is_a_domains_expert_too() -> None:
    found = prediction(likely("law", 0.9))
    decision = decide(found, THRESHOLDS, {"law": "gen"}, "gen", costs=MATRIX)
    assert (decision.expert, decision.fallback, decision.costs) == ("gen", False, {"gen": 0.0})
    assert "not measured" not in decision.reason


def test_measured_at_home_alone() -> None:
    """Its cost away is not known, so thresholds decide; but not if it is the worse model even at home."""
    good, poor = (
        CostMatrix({"lex": cost("law", each, elsewhere=None, note="noted")}) for each in (-0.1, 0.08)
    )
    assert ask(likely("law", 0.9), good).expert == "lex"
    decision = ask(likely("law", 0.9), poor)
    assert decision.expert == "gen"
    assert decision.reason == "law: probability 0.90, but lex costs +8.0% there (noted)"


def test_the_parent_in_the_generalists_place_is_said() -> None:
    matrix = CostMatrix({"lex": cost("law", -0.1, note="gen was not measured: its parent stands for it")})
    for probability in (0.5, 0.95):
        reason = ask(likely("law", probability), matrix).reason
        assert reason.endswith("% (gen was not measured: its parent stands for it)")


def test_what_a_policy_allows() -> None:
    """`cost` and `latency`: the assigned expert up to the tolerance, and no other."""
    allowed = CostMatrix({**MATRIX.models, "lex": cost("law", -0.9, -0.9)}, max_cost=0.05, assigned_only=True)
    decision = ask(likely("math", 0.99), allowed)
    assert (decision.expert, decision.fallback) == ("calc", False)
    assert ask(likely("math", 0.9), allowed).expert == "gen"
    assert ask(likely("music", 0.9), allowed).expert == "gen"


def test_an_expert_that_the_query_does_not_fit() -> None:
    class Sure:
        def predict(self, texts: object) -> list[RoutePrediction]:
            return [prediction(likely("law", 0.95))]

    asked: list[str] = []

    def misfit(text: str, expert: str) -> str | None:
        asked.append(expert)
        return f"it has too many tokens for {expert}"

    for matrix in (MATRIX, CostMatrix()):
        decision = route("Vertrag", Sure(), THRESHOLDS, EXPERTS, "gen", costs=matrix, misfit=misfit)
        assert (decision.expert, decision.fallback) == ("gen", True)
        assert decision.reason == "law: probability 0.95, but it has too many tokens for lex"
    assert asked == ["lex", "lex"]
