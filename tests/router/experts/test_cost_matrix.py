"""Costs by planted figures, from slice.json and over HTTP."""

from pathlib import Path

import numpy as np
import pytest

from router.experts import catalogue
from router.experts.cost_matrix import cost_matrix
from router.experts.measurements import ExpertMeasurements
from router.experts.policy import Objective, Policy
from slices import manifest
from slices.estimate import Estimate, ratio
from slices.manifest import BITS, PARENT, RELATIVE
from slices.report.config import EvalConfig
from slices.report.evaluate import evaluate
from slices.report.evaluated_model import EvaluatedModel, find_models
from slices.report.record import record_measurements
from tests.router.conftest import Client
from tests.router.router_world import measured, write_slice
from tests.slices.gguf_fixtures import FULL, SAMPLES, SLIDING, write_gemma3, write_manifest
from tests.slices.report_fakes import DOCUMENTS

ALL = {"layers": "all", "vocab": "all", "ffn": "all"}

HOMES = {"lex": "law", "bio": "biochem", "gen": "general"}
Figures = dict[tuple[str, str], tuple[float, float]]  # domain and metric, to value and standard error


def model(
    own: Figures, parent: Figures | None = None, whole: bool = False, of: str = "p"
) -> ExpertMeasurements:
    return ExpertMeasurements(
        bytes=1,
        estimates={(*key, "text"): Estimate(*value) for key, value in own.items()},
        parent_estimates={(*key, "text"): Estimate(*value) for key, value in (parent or {}).items()},
        whole=whole,
        parent=of,
    )


def at(expert: ExpertMeasurements, generalist: ExpertMeasurements, domain: str = "law") -> float | None:
    matrix = cost_matrix({"lex": expert, "gen": generalist}, HOMES, "gen", Policy())
    return matrix.at("lex", domain)


def bits(value: float, stderr: float = 0.0, domain: str = "law") -> Figures:
    return {(domain, BITS): (value, stderr)}


def change(value: float, stderr: float, metric: str = BITS) -> Figures:
    return {("law", metric + RELATIVE): (value, stderr)}


def test_bits_relative_to_the_generalists() -> None:
    assert at(model(bits(1.1)), model(bits(1.0))) == pytest.approx(0.1)
    assert at(model(bits(0.9)), model(bits(1.0))) == pytest.approx(-0.1)


def test_the_pessimistic_end() -> None:
    """One standard error above: of independent figures, or of paired ones where both know their parent's."""
    alone = at(model(bits(0.9, 0.03)), model(bits(1.0, 0.04)))
    assert alone == pytest.approx(-0.1 + (0.03**2 + (0.9 * 0.04) ** 2) ** 0.5)
    expert = model(bits(0.9, 0.03) | change(-0.1, 0.01))
    paired = at(expert, model(bits(1.0, 0.04) | change(0.0, 0.02)))
    assert paired == pytest.approx(-0.1 + (0.01**2 + (0.9 * 0.02) ** 2) ** 0.5)
    other_parent = at(expert, model(bits(1.0, 0.04) | change(0.0, 0.02), of="q"))
    assert other_parent == pytest.approx(alone)


def test_the_parent_stands_for_a_whole_generalist_that_was_not_measured() -> None:
    expert = model(bits(1.08, 0.3) | change(0.08, 0.01), bits(1.0, 0.3))
    assert at(expert, model({}, whole=True)) == pytest.approx(0.09)
    matrix = cost_matrix({"lex": expert, "gen": model({}, whole=True)}, HOMES, "gen", Policy())
    assert matrix.note("lex") == "gen was not measured: its parent stands for it"
    assert at(expert, model({}, whole=False)) is None
    assert at(expert, model({}, whole=True, of="q")) is None
    assert at(expert, model(bits(1.2, 0.0), whole=True)) == pytest.approx(-0.1 + 0.25)


def test_figures_of_different_texts_are_not_compared() -> None:
    other = ExpertMeasurements(bytes=1, estimates={("law", BITS, "other"): Estimate(1.0, 0.0)}, parent="p")
    assert at(model(bits(9.0)), other) is None


def test_the_worst_that_was_measured_away_counts_elsewhere() -> None:
    domains = {"law": 0.9, "biochem": 1.2, "math": 1.6}
    lex = model({(domain, BITS): (value, 0.0) for domain, value in domains.items()})
    gen = model({(domain, BITS): (1.0, 0.0) for domain in domains})
    assert at(lex, gen, "physics") == pytest.approx(0.6)
    assert at(lex, gen, "general") == pytest.approx(0.6)


def test_the_larger_of_bits_and_lost_answers_counts() -> None:
    questions: Figures = {("law", "mcq_text"): (0.4, 0.0)}
    expert, generalist = bits(0.9) | questions, bits(1.0) | {("law", "mcq_text"): (0.5, 0.0)}
    assert at(model(expert), model(generalist)) == pytest.approx(0.2)
    assert at(model(expert), model(bits(1.0))) == pytest.approx(-0.1)
    better = bits(0.9) | {("law", "mcq_text"): (0.6, 0.05)}
    assert at(model(better), model(generalist)) == pytest.approx(-0.2 + 0.05 / 0.5)
    assert at(model(questions), model({("law", "mcq_text"): (0.0, 0.0)})) is None


def test_what_the_policy_allows() -> None:
    models = {"lex": model(bits(1.0)), "gen": model(bits(1.0))}
    quality = cost_matrix(models, HOMES, "gen", Policy(tolerance=0.1))
    cost = cost_matrix(models, HOMES, "gen", Policy(Objective.COST, 0.1))
    assert (quality.max_cost, quality.assigned_only) == (0.0, False)
    assert (cost.max_cost, cost.assigned_only) == (0.1, True)


def test_slice_json_tells_the_catalogue(slices_root: Path) -> None:
    write_slice(slices_root, "poor", "law", created="2026-06-01T00:00:00+00:00",
                measurements=[measured(2.0, stderr=0.0), measured(1.0, variant=PARENT)])  # fmt: skip
    write_slice(slices_root, "gen2", "general", measurements=[measured(1.1, stderr=0.0)])
    served = catalogue.read(generalist="gen2")
    assert served.by_domain == {"biochem": "bio", "law": "poor"}
    assert served.costs.at("poor", "law") == pytest.approx(2.0 / 1.1 - 1)
    assert catalogue.without(served, {"bio": "no memory"}).costs == served.costs


def test_over_http(serve: Client, slices_root: Path) -> None:
    for name, domain, value in (("poor", "law", 2.0), ("new", "general", 1.0)):
        figures = [measured(value, stderr=0.0, domain=each) for each in ("law", "biochem")]
        write_slice(slices_root, name, domain, created="2026-06-01T00:00:00+00:00", measurements=figures)
    decision = serve().post("/route", json={"query": "Is a verbal contract enforceable?"}).json()
    assert (decision["expert"], decision["domain"]) == ("new", "law")
    assert decision["costs"]["poor"] == pytest.approx(1)
    assert decision["costs"]["new"] == 0
    assert f"the expected cost of poor is {decision['costs']['poor']:+.1%}" in decision["reason"]


def test_real_slices_as_mom_eval_measures_them(mom_home: Path) -> None:
    """A parent of two layers, its slice with one of them dropped, and the parent itself as the generalist."""
    parent = write_gemma3(mom_home / "parent", [SLIDING, FULL])
    whole = pico(mom_home / "slices" / "gen", "general", [SLIDING, FULL], recipe=ALL)
    pico(mom_home / "slices" / "lex", "law", [SLIDING], recipe=ALL | {"layers": "0"})
    models = find_models(mom_home / "slices" / "lex")
    texts = {"law": DOCUMENTS, "biochem": [*SAMPLES.values()]}
    report = evaluate(models, texts, EvalConfig(threads=1), EvaluatedModel(PARENT, parent))
    record_measurements(report, "1.0")
    served = catalogue.read()
    assert served.generalist == whole.name
    costs = served.costs.models["lex"]
    assert costs.note == "gen was not measured: its parent stands for it"
    for domain in texts:
        ours, theirs = (np.array(report.models[name].domains[domain].bits) for name in ("lex", PARENT))
        change = ratio(ours, theirs)
        assert costs.at(domain) == pytest.approx(change.value - 1 + change.stderr)
    assert costs.at("physics") == costs.at("biochem") != costs.at("law")


def pico(folder: Path, domain: str, layers: list[str], recipe: dict[str, str]) -> Path:
    write_gemma3(folder, layers)
    write_manifest(folder, folder.name)
    changed = {"domain": domain, "recipe": recipe}
    manifest.write(folder, manifest.read(folder).model_copy(update=changed))
    return folder
