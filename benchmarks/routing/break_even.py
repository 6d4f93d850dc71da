"""Bits of a routed mixture relative to its generalist, by the router's accuracy and by how it decides.

The costs are those of the healed slices of Gemma 3 270M in results/healing.json: bits per byte of every slice
on every domain, relative to the parent's, which is the generalist. Routers of a given accuracy are simulated:
a query of domain y, all equally frequent, shows x = s e_y + noise of variance one, and the router gives the
posterior softmax(s x), so that its probabilities are calibrated. With --data the probabilities are those of
the router that `mom route explain` uses, for held-out questions. `router.routing.decide` decides, as served.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.paths import RESULTS
from benchmarks.routing.data import Query, heldout_queries, read
from router import settings
from router.experts.cost_matrix import PESSIMISM
from router.routing.cascade import RoutePrediction
from router.routing.decide import decide
from router.routing.expected_cost import NOT_MEASURED, CostMatrix, ModelCost
from router.routing.model import Thresholds, softmax
from router.serving import build
from slices.estimate import Estimate

ACCURACIES = (0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 1.0)
SEEDS = range(5)
QUERIES = 5000  # of each seed
REAL_QUERIES = 400  # of each domain
GENERALIST = "generalist"
ARGMAX = "always the likeliest domain's"
PESSIMISMS = {
    "expected cost, as measured": 0.0,
    "expected cost": PESSIMISM,
    "expected cost, 1.645 errors": 1.645,
}
REDRAWS, REDRAWN_QUERIES = 40, 500  # measurements drawn anew, and queries under each
ALWAYS = Thresholds(min_confidence=0.0, min_margin=0.0, min_in_domain=0.0)
Costs = Mapping[tuple[str, str], Estimate]  # slice's domain, domain of the text
Predictions = Sequence[RoutePrediction]
Probabilities = NDArray[np.float64]  # (queries, domains)


def measured_costs(model: str = "gemma-3-270m", table: str = "swa") -> Costs:
    """Relative bits of each healed slice on each domain, with paired standard errors."""
    rows = json.loads((RESULTS / "healing.json").read_text(encoding="utf-8"))["rows"]
    costs = {}
    for row in rows:
        if row["model"] == model and row["row"]["table"] == table and "healed" in row:
            for domain, found in row["healed"]["domains"].items():
                over, parent = found["bits_over_parent"], found["parent"]["value"]
                key = (row["row"]["domain"], domain)
                costs[key] = Estimate(over["value"] / parent, over["stderr"] / parent)
    return costs


def matrix(costs: Costs, pessimism: float) -> CostMatrix:
    """The matrix that the router decides by; a slice is called as its domain."""
    models = {}
    for home in dict.fromkeys(home for home, _ in costs):
        row = {on: each.value + pessimism * each.stderr for (of, on), each in costs.items() if of == home}
        away = max(cost for domain, cost in row.items() if domain != home)
        models[home] = ModelCost(home=home, by_domain=row, elsewhere=away)
    return CostMatrix(models)


def deciders(costs: Costs) -> dict[str, tuple[Thresholds, CostMatrix]]:
    """The ways to decide: thresholds, and the costs that are known to it."""
    return {
        ARGMAX: (ALWAYS, NOT_MEASURED),
        "thresholds": (Thresholds(), NOT_MEASURED),
        **{name: (ALWAYS, matrix(costs, errors)) for name, errors in PESSIMISMS.items()},
    }


def redrawn(costs: Costs, seed: int) -> Costs:
    """The costs as another measurement with the same errors could have found them."""
    random = np.random.default_rng([seed, 1])
    return {key: Estimate(random.normal(each.value, each.stderr), each.stderr) for key, each in costs.items()}


def simulated(
    accuracy: float, domains: Sequence[str], queries: int, seed: int
) -> tuple[Predictions, list[str]]:
    """Calibrated predictions of a router of about this accuracy, and the true domains."""
    random = np.random.default_rng([seed, round(1000 * accuracy)])
    labels = random.integers(0, len(domains), queries)
    noise = random.standard_normal((queries, len(domains)))
    signal = _signal(accuracy, labels, noise)
    found = _posterior(signal, labels, noise)
    return [_prediction(domains, row) for row in found], [domains[label] for label in labels]


def _posterior(signal: float, labels: NDArray[np.int64], noise: Probabilities) -> Probabilities:
    shown = noise + signal * np.eye(noise.shape[1])[labels]
    return softmax(signal * shown)


def _signal(accuracy: float, labels: NDArray[np.int64], noise: Probabilities) -> float:
    """The least signal of this accuracy on these queries, by bisection."""
    low, high = 0.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        right = (_posterior(middle, labels, noise).argmax(axis=1) == labels).mean()
        low, high = (low, middle) if right >= accuracy else (middle, high)
    return high


def _prediction(classes: Sequence[str], probabilities: Probabilities) -> RoutePrediction:
    return RoutePrediction(
        classes=tuple(classes), probabilities=probabilities, in_domain=1.0, distance=0.0, embedder=""
    )


def shares(
    predictions: Predictions, truth: Sequence[str], thresholds: Thresholds, known: CostMatrix, costs: Costs
) -> dict[tuple[str, str], float]:
    """The share of the queries by the slice that answers and the true domain; the generalist's left out."""
    experts = {home: home for home, _ in costs}
    counts: dict[tuple[str, str], float] = {}
    for prediction, domain in zip(predictions, truth, strict=True):
        chosen = decide(prediction, thresholds, experts, GENERALIST, costs=known).expert
        if chosen != GENERALIST:
            counts[chosen, domain] = counts.get((chosen, domain), 0.0) + 1 / len(truth)
    return counts


def relative_bits(found: Mapping[tuple[str, str], float], costs: Costs) -> Estimate:
    """Mean relative bits, with the standard error that the measured costs bring."""
    value = sum(share * costs[key].value for key, share in found.items())
    variance = sum((share * costs[key].stderr) ** 2 for key, share in found.items())
    return Estimate(value, variance**0.5)


def outcome(runs: Sequence[Mapping[tuple[str, str], float]], costs: Costs) -> dict[str, float]:
    """Mean relative bits over seeds; errors over seeds and of the measured costs; what experts answered."""
    estimates = [relative_bits(run, costs) for run in runs]
    values = np.array([each.value for each in estimates])
    return {
        "value": float(values.mean()),
        "stderr_seeds": float(values.std(ddof=1) / len(runs) ** 0.5) if len(runs) > 1 else 0.0,
        "stderr_costs": float(np.mean([each.stderr for each in estimates])),
        "to_experts": float(np.mean([sum(run.values()) for run in runs])),
    }


def simulate(costs: Costs, queries: int = QUERIES, seeds: Sequence[int] = SEEDS) -> list[dict[str, Any]]:
    """A row for each accuracy: what each way to decide gives."""
    domains = list(dict.fromkeys(home for home, _ in costs))
    rows = []
    for accuracy in ACCURACIES:
        samples = [simulated(accuracy, domains, queries, seed) for seed in seeds]
        ways = {
            name: outcome([shares(*sample, *way, costs) for sample in samples], costs)
            for name, way in deciders(costs).items()
        }
        again = remeasured(costs, accuracy)
        rows.append({
            "accuracy": accuracy, "queries": queries, "seeds": len(seeds), "relative_bits": ways,
            "remeasured": again,
        })  # fmt: skip
    return rows


def remeasured(costs: Costs, accuracy: float) -> dict[str, dict[str, float]]:
    """As `simulate`, if the costs were the true ones and decisions rested on noisy measurements of them."""
    domains, found = list(dict.fromkeys(home for home, _ in costs)), {}
    for name, errors in PESSIMISMS.items():
        values = []
        for seed in range(REDRAWS):
            known = matrix(redrawn(costs, seed), errors)
            sample = simulated(accuracy, domains, REDRAWN_QUERIES, seed)
            values.append(relative_bits(shares(*sample, ALWAYS, known, costs), costs).value)
        found[name] = {
            "value": float(np.mean(values)),
            "stderr": float(np.std(values, ddof=1) / REDRAWS**0.5),
        }
    return found


def real(costs: Costs, queries: Sequence[Query]) -> dict[str, Any]:
    """The same with the router's own predictions of questions of the measured domains."""
    domains = {home for home, _ in costs}
    chosen = [each for domain in sorted(domains) for each in _sample(queries, domain)]
    loaded = settings.read()
    router = build.load_or_fit_router(loaded)
    predictions = build.open_cascade(router, loaded).predict([each.text for each in chosen])
    truth = [each.domain for each in chosen]
    likeliest = [each.classes[int(each.probabilities.argmax())] for each in predictions]
    ways = {
        name: (ALWAYS if name == ARGMAX else router.thresholds, known)
        for name, (_, known) in deciders(costs).items()
    }
    return {
        "queries": len(truth),
        "accuracy": float(np.mean(np.array(likeliest) == np.array(truth))),
        "relative_bits": {
            name: outcome([shares(predictions, truth, *way, costs)], costs) for name, way in ways.items()
        },
    }


def _sample(queries: Sequence[Query], domain: str) -> list[Query]:
    found = sorted((each for each in queries if each.domain == domain), key=lambda each: each.text)
    order = np.random.default_rng(0).permutation(len(found))[:REAL_QUERIES]
    return [found[index] for index in order]


def main() -> None:
    """Simulate and write results/break_even.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="labelled questions for the router's own predictions")
    args = parser.parse_args()
    costs, out = measured_costs(), RESULTS / "break_even.json"
    report: dict[str, Any] = {
        "costs": [
            {"slice": of, "domain": on, "value": each.value, "stderr": each.stderr}
            for (of, on), each in costs.items()
        ],
        "pessimism": PESSIMISM,
        "rows": simulate(costs),
    }
    if args.data:
        report["real"] = real(costs, heldout_queries(read(args.data)))
    report |= {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"numpy": version("numpy")},
    }
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for row in [*report["rows"], *([report["real"]] if "real" in report else [])]:
        ways, again = row["relative_bits"].values(), row.get("remeasured", {}).values()
        cells = [f"{each['value']:+.2%} ({each['to_experts']:.0%})" for each in ways]
        cells += [f"{each['value']:+.2%} ± {each['stderr']:.2%}" for each in again]
        print(f"{row['accuracy']:.1%}", *cells)


if __name__ == "__main__":
    main()
