"""Assignment of domains by planted figures; and the figures of slice.json."""

from pathlib import Path

import pytest

from router.experts import catalogue
from router.experts.policy import Assignment, ExpertMeasurements, Objective, Policy, assign
from router.routing.cascade import Cascade
from router.routing.decide import decide
from slices.manifest import BITS, PARENT, SPEED
from tests.router.conftest import Client
from tests.router.router_world import write_slice

LAW = ("law", "text-1")


def model(
    size: int, bits: float | None, speed: float | None = None, text: tuple[str, str] = LAW
) -> ExpertMeasurements:
    return ExpertMeasurements(
        bytes=size,
        bits_per_byte={} if bits is None else {text: bits},
        parent_bits_per_byte={text: 1.0},
        decode_tokens_per_second=speed,
    )


@pytest.mark.parametrize(
    ("own", "general", "expert"),
    [
        (1.049, 1.0, "lex"),
        (1.051, 1.0, None),
        (0.9, 1.0, "lex"),
        (None, 1.0, "lex"),  # not measured: it keeps its domain
        (1.5, None, "lex"),
    ],
)
def test_quality_disables_what_is_worse_than_the_generalist(
    own: float | None, general: float | None, expert: str | None
) -> None:
    found = assign("law", "lex", {"lex": model(9, own), "gen": model(99, general)}, "gen", Policy())
    assert found.expert == expert
    if expert is None:
        assert "needs 5.1% more bits than the generalist there, over the 5% allowed" in found.reason


def test_figures_of_different_texts_are_not_compared() -> None:
    other = model(99, 1.0, text=("law", "text-2"))
    assert assign("law", "lex", {"lex": model(9, 9.0), "gen": other}, "gen", Policy()).expert == "lex"


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


def measured(value: float, **more: object) -> dict[str, object]:
    return {
        "variant": "bf16",
        "domain": "law",
        "metric": BITS,
        "value": value,
        "stderr": 0.1,
        "data": "d",
    } | more


def test_slice_json_tells_the_catalogue(slices_root: Path) -> None:
    write_slice(slices_root, "poor", "law", created="2026-06-01T00:00:00+00:00", measurements=[
        measured(2.0), measured(1.0, variant=PARENT), measured(7.0, metric=SPEED, domain="", data=""),
        measured(9.0, variant="gone.gguf"),
    ])  # fmt: skip
    write_slice(slices_root, "gen2", "general", measurements=[measured(1.1)])
    served = catalogue.read(generalist="gen2")
    poor = served.experts["poor"].measurements
    assert (poor.bits_per_byte, poor.parent_bits_per_byte, poor.decode_tokens_per_second) == (
        {("law", "d"): 2.0},
        {("law", "d"): 1.0},
        7.0,
    )
    assert served.by_domain == {"biochem": "bio"}
    assert "its expert poor needs 81.8% more bits" in served.disabled_reason["law"]
    assert catalogue.read(generalist="gen2", policy=Policy(tolerance=1.0)).by_domain["law"] == "poor"


def test_the_decision_says_so(cascade: Cascade) -> None:
    (prediction,) = cascade.predict(["Is a verbal contract enforceable?"])
    thresholds = cascade.router.thresholds
    decision = decide(prediction, thresholds, {"biochem": "bio"}, "gen", {"law": "its expert is poor"})
    assert (decision.expert, decision.domain, decision.fallback) == ("gen", "law", True)
    assert decision.reason.endswith("but its expert is poor")
    assert "no expert for it" in decide(prediction, thresholds, {}, "gen").reason


def test_over_http(serve: Client, slices_root: Path) -> None:
    write_slice(slices_root, "poor", "law", created="2026-06-01T00:00:00+00:00", measurements=[measured(2.0)])
    write_slice(slices_root, "new", "general", created="2026-06-01T00:00:00+00:00",
                measurements=[measured(1.0)])  # fmt: skip
    decision = serve().post("/route", json={"query": "Is a verbal contract enforceable?"}).json()
    assert (decision["expert"], decision["domain"]) == ("new", "law")
    assert "needs 100.0% more bits than the generalist" in decision["reason"]
