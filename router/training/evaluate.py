"""Evaluation of a router on labelled queries that it was not fitted on.

The labels `ood` and `general` mean that no expert should answer. Rows of a domain that the router does not
know are skipped and counted. Nothing here fits or runs an expert.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.errors import BadTraining
from router.routing.cascade import RoutePrediction, RoutePredictor
from router.routing.decide import decide
from router.routing.model import GENERAL, Router
from router.training.dataset import OOD, LabelledQuery
from router.training.metrics import auroc, coverage, expected_calibration_error, ood_recall_at, reliability
from router.training.perturbations import PERTURBATIONS

TIMED_QUERIES = 100  # one by one
PERTURBED_QUERIES = 2000  # of each kind
ACCEPTANCE = 0.95  # of in-domain queries, at which `ood_recall_at_95` is measured


@dataclass(frozen=True)
class ForcedChoice:
    """Accuracy of the likeliest class, with its standard error, over the n in-domain and general rows."""

    accuracy: float
    stderr: float
    n: int


@dataclass(frozen=True)
class RoutedDecisions:
    """Accuracy of decisions over all n rows: the label's expert, or the generalist where none should answer.

    `to_generalist`: share of experts' own questions that fell back, None without any. `wrong_expert`: share
    of rows that went to an expert of another domain.
    """

    accuracy: float
    stderr: float
    n: int
    to_generalist: float | None
    wrong_expert: float


@dataclass(frozen=True)
class RouteReport:
    """The figures of an evaluation; shares from 0 to 1.

    `by_domain`: recall of the likeliest class and of the decision. `confusion`: by label, how often each
    class was likeliest. `ood_auroc`: of the in-domain score, experts' questions against `ood` ones;
    `ood_recall`: share of `ood` rows that fell back; `ood_recall_at_95`: the same were 95 % of experts'
    questions accepted;
    None without both kinds. `coverage`: accuracy of the most confident share. `robustness`: by perturbation,
    the share of queries that are still sent to the same expert. `decided_by`: share of decisions by embedder.
    """

    routed: RoutedDecisions
    forced: ForcedChoice
    skipped: int
    by_domain: dict[str, dict[str, float]]
    confusion: dict[str, dict[str, int]]
    ece: float
    reliability: list[dict[str, float]]
    ood_auroc: float | None
    ood_recall: float | None
    ood_recall_at_95: float | None
    coverage: list[dict[str, float]]
    robustness: dict[str, float]
    decided_by: dict[str, float]
    latency_ms: dict[str, float]


def evaluate(
    queries: Sequence[LabelledQuery], router: Router, predictor: RoutePredictor, seed: int = 0
) -> RouteReport:
    """Evaluate `router` on `queries`, as if every domain had an expert.

    Args:
        predictor: of the router; not cached, since it is timed.

    Raises:
        BadTraining: no row is of a domain that the router knows.
    """
    known = [query for query in queries if query.domain in (*router.classes, OOD)]
    if all(query.domain == OOD for query in known):
        raise BadTraining(f"no query is of a domain the router knows: {', '.join(router.classes)}")
    texts, labels = [query.text for query in known], np.array([query.domain for query in known])
    predictions = predictor.predict(texts)
    experts = _chosen_experts(predictions, router)
    labelled, ood = labels != OOD, labels == OOD
    in_domain = labelled & (labels != GENERAL)
    probabilities = np.stack([each.probabilities for each in predictions])[labelled]
    likeliest, confidence = np.array(router.classes)[probabilities.argmax(axis=1)], probabilities.max(axis=1)
    correct = likeliest == labels[labelled]
    scores = np.array([each.in_domain for each in predictions])
    embedders = Counter(each.embedder for each in predictions)
    return RouteReport(
        routed=_routed_decisions(labels, experts, in_domain),
        forced=ForcedChoice(*_accuracy(correct)),
        skipped=len(queries) - len(known),
        by_domain=_by_domain(labels[labelled], likeliest, experts[labelled]),
        confusion=_confusion(labels[labelled], likeliest),
        ece=expected_calibration_error(confidence, correct),
        reliability=reliability(confidence, correct),
        ood_auroc=auroc(scores, in_domain, ood),
        ood_recall=float((experts[ood] == GENERAL).mean()) if ood.any() else None,
        ood_recall_at_95=ood_recall_at(scores, in_domain, ood, ACCEPTANCE),
        coverage=coverage(confidence, correct),
        robustness=_robustness(texts, experts, router, predictor, seed),
        decided_by={name: count / len(predictions) for name, count in embedders.items()},
        latency_ms=_latency(texts[:TIMED_QUERIES], router, predictor),
    )


def _chosen_experts(predictions: Sequence[RoutePrediction], router: Router) -> NDArray[np.str_]:
    """The expert of each decision, (n,), were there one for every domain."""
    experts = {name: name for name in router.classes}
    return np.array([decide(each, router.thresholds, experts, GENERAL).expert for each in predictions])


def _accuracy(correct: NDArray[np.bool_]) -> tuple[float, float, int]:
    """(accuracy, standard error, n)."""
    accuracy = float(correct.mean())
    return accuracy, float(np.sqrt(accuracy * (1 - accuracy) / len(correct))), len(correct)


def _routed_decisions(
    labels: NDArray[np.str_], experts: NDArray[np.str_], in_domain: NDArray[np.bool_]
) -> RoutedDecisions:
    correct = experts == np.where(labels == OOD, GENERAL, labels)
    accuracy, stderr, count = _accuracy(correct)
    return RoutedDecisions(
        accuracy=accuracy,
        stderr=stderr,
        n=count,
        to_generalist=float((experts[in_domain] == GENERAL).mean()) if in_domain.any() else None,
        wrong_expert=float((~correct & (experts != GENERAL)).mean()),
    )


def _by_domain(
    labels: NDArray[np.str_], likeliest: NDArray[np.str_], experts: NDArray[np.str_]
) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for domain in sorted({str(name) for name in labels}):
        rows = labels == domain
        table[domain] = {
            "n": int(rows.sum()),
            "forced": float((likeliest[rows] == domain).mean()),
            "routed": float((experts[rows] == domain).mean()),
        }
    return table


def _confusion(labels: NDArray[np.str_], likeliest: NDArray[np.str_]) -> dict[str, dict[str, int]]:
    return {
        domain: dict(Counter(likeliest[labels == domain].tolist()).most_common())
        for domain in sorted({str(name) for name in labels})
    }


def _robustness(
    texts: Sequence[str], experts: NDArray[np.str_], router: Router, predictor: RoutePredictor, seed: int
) -> dict[str, float]:
    """By perturbation, the share of a sample of queries whose expert stays the same."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(texts))[:PERTURBED_QUERIES]
    shares = {}
    for name, perturb in PERTURBATIONS.items():
        perturbed = [perturb(texts[index], rng) for index in chosen]
        same = _chosen_experts(predictor.predict(perturbed), router) == experts[chosen]
        shares[name] = float(same.mean())
    return shares


def _latency(texts: Sequence[str], router: Router, predictor: RoutePredictor) -> dict[str, float]:
    """Percentiles of the milliseconds of single decisions."""
    milliseconds = []
    for text in texts:
        start = time.perf_counter()
        _chosen_experts(predictor.predict([text]), router)
        milliseconds.append(1000 * (time.perf_counter() - start))
    return {f"p{share}": float(np.percentile(milliseconds, share)) for share in (50, 95, 99)}
