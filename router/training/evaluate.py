"""How well a router routes, on labelled queries that it was not fitted on.

A label `ood` or `general` means that no expert should answer. Rows of a domain the router does not
know are left out and counted. Nothing here fits or runs an expert.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.errors import BadTraining
from router.routing.cascade import Reader, Reading
from router.routing.decide import decide
from router.routing.model import GENERAL, Router
from router.training.dataset import OOD
from router.training.metrics import auroc, calibration_error, coverage, recall_at, reliability
from router.training.perturbations import NOISE

TIMED = 100  # queries timed one by one
NOISY = 2000  # queries disturbed, of each kind of noise
ACCEPTED = 0.95  # share of in-domain queries let through where the recall of others is told


@dataclass(frozen=True)
class RouteReport:
    """Shares from 0 to 1.

    `accuracy`: right domain, with its standard error, over in-domain and general rows; `routed`: right expert
    or rightly none, over all rows. `confusion`: by label, how often each class was likeliest.
    `ood_auroc`: does belonging to an expert's domain tell experts' questions from `ood` ones; `ood_recall`:
    share of `ood` rows that fell back; `ood_recall_at_95`: that share were 95 % of experts' questions let
    through; None without both kinds. `accepted`: share of experts' own questions that some expert got.
    `coverage`: accuracy of the surest share. `survived`: by kind of noise, the share of queries that went to
    the same expert in spite of it. `decided_by`: share of decisions by the last embedder that was asked.
    """

    n: int
    skipped: int
    accuracy: float
    stderr: float
    routed: float
    per_domain: dict[str, dict[str, float]]
    confusion: dict[str, dict[str, int]]
    ece: float
    reliability: list[dict[str, float]]
    ood_auroc: float | None
    ood_recall: float | None
    ood_recall_at_95: float | None
    accepted: float | None
    coverage: list[dict[str, float]]
    survived: dict[str, float]
    decided_by: dict[str, float]
    latency_ms: dict[str, float]


def evaluate(
    queries: Sequence[tuple[str, str]], router: Router, reader: Reader, seed: int = 0
) -> RouteReport:
    """Measure `router` on `queries`, pairs of (text, domain), as if every domain had its expert.

    Args:
        reader: of the router; one that remembers nothing, for the times are its own.

    Raises:
        BadTraining: no row is of a domain that the router knows.
    """
    known = [(text, domain) for text, domain in queries if domain in (*router.classes, OOD)]
    if not any(domain != OOD for _, domain in known):
        raise BadTraining(f"no query is of a domain the router knows: {', '.join(router.classes)}")
    texts, wanted = [text for text, _ in known], np.array([domain for _, domain in known])
    readings = reader.read(texts)
    routed = _routed(readings, router)
    asked = Counter(reading.embedder for reading in readings)
    return RouteReport(
        n=len(known),
        skipped=len(queries) - len(known),
        routed=float((routed == np.where(wanted == OOD, GENERAL, wanted)).mean()),
        survived=_survived(texts, routed, router, reader, seed),
        decided_by={name: count / len(readings) for name, count in asked.items()},
        latency_ms=_latency(texts[:TIMED], router, reader),
        **_of_domains(readings, wanted, routed, router),
        **_of_strangers(readings, wanted, routed),
    )


def _of_domains(
    readings: Sequence[Reading], wanted: NDArray[np.str_], routed: NDArray[np.str_], router: Router
) -> dict[str, Any]:
    """How well domains are told apart, and how well it is known how well."""
    labelled = wanted != OOD
    chances = np.stack([each.chances for each in readings])[labelled]
    guess, sure = np.array(router.classes)[chances.argmax(axis=1)], chances.max(axis=1)
    right = guess == wanted[labelled]
    accuracy = float(right.mean())
    return {
        "accuracy": accuracy,
        "stderr": float(np.sqrt(accuracy * (1 - accuracy) / len(right))),
        "per_domain": _per_domain(wanted[labelled], guess, routed[labelled]),
        "confusion": _confusion(wanted[labelled], guess),
        "ece": calibration_error(sure, right),
        "reliability": reliability(sure, right),
        "coverage": coverage(sure, right),
    }


def _of_strangers(
    readings: Sequence[Reading], wanted: NDArray[np.str_], routed: NDArray[np.str_]
) -> dict[str, Any]:
    """How well what no expert should answer is told from what one should."""
    ood, own = wanted == OOD, (wanted != OOD) & (wanted != GENERAL)
    belonging = np.array([each.belonging for each in readings])
    return {
        "ood_auroc": auroc(belonging, own, ood),
        "ood_recall": float((routed[ood] == GENERAL).mean()) if ood.any() else None,
        "ood_recall_at_95": recall_at(belonging, own, ood, ACCEPTED),
        "accepted": float((routed[own] != GENERAL).mean()) if own.any() else None,
    }


def _routed(readings: Sequence[Reading], router: Router) -> NDArray[np.str_]:
    """The expert of each text, shape (n,), were there one for every domain."""
    experts = {name: name for name in router.classes}
    return np.array([decide(each, router.thresholds, experts, GENERAL).expert for each in readings])


def _per_domain(
    wanted: NDArray[np.str_], guess: NDArray[np.str_], routed: NDArray[np.str_]
) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for domain in sorted({str(name) for name in wanted}):
        mine = wanted == domain
        share = {
            "recall": float((guess[mine] == domain).mean()),
            "routed": float((routed[mine] == domain).mean()),
        }
        table[domain] = {"n": int(mine.sum()), **share}
    return table


def _confusion(wanted: NDArray[np.str_], guess: NDArray[np.str_]) -> dict[str, dict[str, int]]:
    return {
        domain: dict(Counter(guess[wanted == domain].tolist()).most_common())
        for domain in sorted({str(name) for name in wanted})
    }


def _survived(
    texts: Sequence[str], routed: NDArray[np.str_], router: Router, reader: Reader, seed: int
) -> dict[str, float]:
    """By kind of noise, the share of a sample of queries whose expert stays the same."""
    draw = np.random.default_rng(seed)
    chosen = draw.permutation(len(texts))[:NOISY]
    shares = {}
    for kind, disturb in NOISE.items():
        noisy = [disturb(texts[index], draw) for index in chosen]
        shares[kind] = float((_routed(reader.read(noisy), router) == routed[chosen]).mean())
    return shares


def _latency(texts: Sequence[str], router: Router, reader: Reader) -> dict[str, float]:
    took = []
    for text in texts:
        begin = time.perf_counter()
        _routed(reader.read([text]), router)
        took.append(1000 * (time.perf_counter() - begin))
    return {f"p{share}": float(np.percentile(took, share)) for share in (50, 95, 99)}
