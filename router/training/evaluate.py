"""Evaluation of a router on labelled queries that it was not fitted on.

The labels `ood` and `general` mean that no expert should answer. Rows of a domain that the router does not
know are skipped and counted. Nothing here fits or runs an expert.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.errors import BadTraining
from router.routing.cascade import RoutePredictor
from router.routing.model import GENERAL, Router
from router.training.dataset import OOD, LabelledQuery
from router.training.decision_cost import DecisionCost
from router.training.decisions import RoutedQueries, of_known_domains, route_queries
from router.training.latency import decision_latency
from router.training.leave_one_out import HeldOutAccuracy
from router.training.metrics import auroc, coverage, expected_calibration_error, ood_recall_at, reliability
from router.training.robustness import robustness
from router.training.route_accuracy import ForcedAccuracy, RoutedAccuracy, forced_accuracy, routed_accuracy

ACCEPTANCE = 0.95  # of experts' own queries, at which `ood_recall_at_95` is measured


@dataclass(frozen=True)
class ForcedChoice:
    """Accuracy of the likeliest class over the n rows that are not `ood`, in all and by group.

    `confusion`: by label, how often each class was likeliest.
    """

    accuracy: float
    stderr: float
    n: int
    by_domain: dict[str, ForcedAccuracy]
    by_form: dict[str, ForcedAccuracy]
    by_language: dict[str, ForcedAccuracy]
    by_source: dict[str, ForcedAccuracy]
    confusion: dict[str, dict[str, int]]


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error of the likeliest class's probability over n rows."""

    n: int
    ece: float


@dataclass(frozen=True)
class RouteReport:
    """The figures of an evaluation; shares from 0 to 1.

    Attributes:
        routed: accuracy of the routed decisions of all rows; the four after it are of groups of rows.
        hard: the same of the rows that have an expert's words but need none; None without any.
        confusion: by label, how often each expert was chosen; `general` is the generalist.
        skipped: rows of domains that the router does not know.
        ood_auroc: of the in-domain score, experts' queries against `ood` ones; None without both kinds.
        ood_recall: share of `ood` rows that fell back to the generalist.
        ood_recall_at_95: the same were 95 % of experts' queries accepted.
        coverage: accuracy of forced choice of the most confident share.
        robustness: by perturbation, the share of queries that are still sent to the same expert.
        decided_by: share of decisions by embedder.
        leave_one_source_out: by source, the accuracy of a router fitted without it; None: not measured.
        leave_one_form_out: the same by form of the domains' example queries.
        cost: of the decisions with the slices that are served; None without measurements.
    """

    routed: RoutedAccuracy
    by_domain: dict[str, RoutedAccuracy]
    by_form: dict[str, RoutedAccuracy]
    by_language: dict[str, RoutedAccuracy]
    by_source: dict[str, RoutedAccuracy]
    hard: RoutedAccuracy | None
    confusion: dict[str, dict[str, int]]
    forced: ForcedChoice
    skipped: int
    ece: float
    ece_by_source: dict[str, CalibrationError]
    reliability: list[dict[str, float]]
    ood_auroc: float | None
    ood_recall: float | None
    ood_recall_at_95: float | None
    coverage: list[dict[str, float]]
    robustness: dict[str, float]
    decided_by: dict[str, float]
    latency_ms: dict[str, float]
    leave_one_source_out: dict[str, HeldOutAccuracy] | None = None
    leave_one_form_out: dict[str, HeldOutAccuracy] | None = None
    cost: DecisionCost | None = None


def evaluate(
    queries: Sequence[LabelledQuery], router: Router, predictor: RoutePredictor, seed: int = 0
) -> RouteReport:
    """Evaluate `router` on `queries`, as if every domain had an expert.

    Args:
        predictor: of the router; not cached, since it is timed.

    Raises:
        BadTraining: no row is of a domain that the router knows.
    """
    known = of_known_domains(queries, router)
    if all(query.domain == OOD for query in known):
        raise BadTraining(f"no query is of a domain the router knows: {', '.join(router.domains)}")
    texts, routed = [query.text for query in known], route_queries(known, router, predictor)
    labelled, ood = routed.where(routed.labels != OOD), routed.labels == OOD
    hard = routed.where(np.array([query.hard for query in known]) & ~routed.has_expert)
    correct = labelled.likeliest == labelled.labels
    return RouteReport(
        routed=routed_accuracy(routed),
        by_domain=routed.by_group(lambda query: query.domain, routed_accuracy),
        by_form=routed.by_group(lambda query: query.form, routed_accuracy),
        by_language=routed.by_group(lambda query: query.language, routed_accuracy),
        by_source=routed.by_group(lambda query: query.source, routed_accuracy),
        hard=routed_accuracy(hard) if len(hard) else None,
        confusion=_confusion(routed.labels, routed.experts),
        forced=_forced_choice(labelled),
        skipped=len(queries) - len(known),
        ece=_calibration_error(labelled).ece,
        ece_by_source=labelled.by_group(lambda query: query.source, _calibration_error),
        reliability=reliability(labelled.confidence, correct),
        ood_auroc=auroc(routed.in_domain, routed.has_expert, ood),
        ood_recall=float((routed.experts[ood] == GENERAL).mean()) if ood.any() else None,
        ood_recall_at_95=ood_recall_at(routed.in_domain, routed.has_expert, ood, ACCEPTANCE),
        coverage=coverage(labelled.confidence, correct),
        robustness=robustness(texts, routed.experts, router, predictor, seed),
        decided_by={str(name): n / len(routed) for name, n in Counter(routed.decided_by.tolist()).items()},
        latency_ms=decision_latency(texts, router, predictor),
    )


def _forced_choice(labelled: RoutedQueries) -> ForcedChoice:
    total = forced_accuracy(labelled)
    return ForcedChoice(
        accuracy=total.accuracy,
        stderr=total.stderr,
        n=total.n,
        by_domain=labelled.by_group(lambda query: query.domain, forced_accuracy),
        by_form=labelled.by_group(lambda query: query.form, forced_accuracy),
        by_language=labelled.by_group(lambda query: query.language, forced_accuracy),
        by_source=labelled.by_group(lambda query: query.source, forced_accuracy),
        confusion=_confusion(labelled.labels, labelled.likeliest),
    )


def _calibration_error(labelled: RoutedQueries) -> CalibrationError:
    correct = labelled.likeliest == labelled.labels
    return CalibrationError(len(labelled), expected_calibration_error(labelled.confidence, correct))


def _confusion(labels: NDArray[np.str_], answers: NDArray[np.str_]) -> dict[str, dict[str, int]]:
    return {
        domain: dict(Counter(answers[labels == domain].tolist()).most_common())
        for domain in sorted({str(name) for name in labels})
    }
