"""How well a router routes, on labelled queries that it was not fitted on.

A label `ood` or `general` means that no expert should answer. Rows of a domain the router does not
know are left out and counted. Nothing here fits or runs an expert.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.decide import GENERAL, Router, decide, distances, probabilities
from router.embed import Embedder
from router.errors import BadTraining

OOD = "ood"
TIMED = 100  # queries timed one by one


@dataclass(frozen=True)
class RouteReport:
    """`accuracy`: right domain, with its standard error, over in-domain and general rows.
    `ood_auroc`: does 1 - P(general) tell experts' questions from `ood` ones; None without both.
    `ood_recall`: share of `ood` rows that fell back. `coverage`: accuracy of the surest share.
    """

    n: int
    skipped: int
    accuracy: float
    stderr: float
    routed: float
    per_domain: dict[str, dict[str, float]]
    ece: float
    ood_auroc: float | None
    ood_recall: float | None
    coverage: list[dict[str, float]]
    latency_ms: dict[str, float]


def read_queries(path: Path) -> list[tuple[str, str]]:
    """(query, domain) of each line of a JSONL file; lines whose domain is null are left out.

    Raises:
        BadTraining: it cannot be read, or a line is not an object with a text `query`; it is numbered.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadTraining(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    rows: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except ValueError as error:
            raise BadTraining(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(said, dict) or not isinstance(said.get("query"), str):
            raise BadTraining(
                f"{path}, line {number}: expected an object with the texts `query` and `domain`"
            )
        if said.get("domain") is not None:
            rows.append((said["query"], str(said["domain"])))
    return rows


def evaluate(queries: Sequence[tuple[str, str]], router: Router, embedder: Embedder) -> RouteReport:
    """Measure `router` on `queries`, pairs of (text, domain), as if every domain had its expert.

    Raises:
        BadTraining: no row is of a domain that the router knows.
    """
    known = [(text, domain) for text, domain in queries if domain in (*router.classes, OOD)]
    if not any(domain != OOD for _, domain in known):
        raise BadTraining(f"no query is of a domain the router knows: {', '.join(router.classes)}")
    vectors = embedder.embed([text for text, _ in known])
    wanted = np.array([domain for _, domain in known])
    chances = probabilities(vectors, router)
    guess = np.array(router.classes)[chances.argmax(axis=1)]
    routed = np.array([_routed(vector, router) for vector in vectors])
    labelled, ood = wanted != OOD, wanted == OOD
    right = (guess == wanted)[labelled]
    sure = chances.max(axis=1)[labelled]
    correct = routed == np.where(ood, GENERAL, wanted)
    accuracy = float(right.mean())
    return RouteReport(
        n=len(known),
        skipped=len(queries) - len(known),
        accuracy=accuracy,
        stderr=float(np.sqrt(accuracy * (1 - accuracy) / len(right))),
        routed=float(correct.mean()),
        per_domain=_per_domain(wanted, guess, routed),
        ece=calibration_error(sure, right),
        ood_auroc=auroc(_belonging(vectors, router), labelled & (wanted != GENERAL), ood),
        ood_recall=float((routed[ood] == GENERAL).mean()) if ood.any() else None,
        coverage=_coverage(sure, right),
        latency_ms=_latency([text for text, _ in known[:TIMED]], router, embedder),
    )


def auroc(scores: NDArray[np.float64], high: NDArray[np.bool_], low: NDArray[np.bool_]) -> float | None:
    """The chance that a row of `high` scores above one of `low`, ties half; None if either is empty."""
    if not high.any() or not low.any():
        return None
    ordered = np.sort(scores[low])
    below = np.searchsorted(ordered, scores[high], "left")
    not_above = np.searchsorted(ordered, scores[high], "right")
    return float((below + not_above).mean() / 2 / len(ordered))


def calibration_error(sure: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 15) -> float:
    """Mean gap between stated and true accuracy over `bins` equal bins of confidence (ECE)."""
    bin_of = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [
        (bin_of == b).mean() * abs(sure[bin_of == b].mean() - right[bin_of == b].mean()) for b in set(bin_of)
    ]
    return float(sum(gaps))


def _belonging(vectors: NDArray[np.float32], router: Router) -> NDArray[np.float64]:
    if GENERAL not in router.classes:
        return -distances(vectors, router)
    return 1.0 - probabilities(vectors, router)[:, router.classes.index(GENERAL)]


def _routed(vector: NDArray[np.float32], router: Router) -> str:
    experts = {name: name for name in router.classes}
    return decide(vector, router, experts, GENERAL).expert


def _per_domain(
    wanted: NDArray[np.str_], guess: NDArray[np.str_], routed: NDArray[np.str_]
) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for domain in sorted({str(name) for name in wanted} - {OOD}):
        mine = wanted == domain
        share = {
            "recall": float((guess[mine] == domain).mean()),
            "routed": float((routed[mine] == domain).mean()),
        }
        table[domain] = {"n": int(mine.sum()), **share}
    return table


def _coverage(sure: NDArray[np.float64], right: NDArray[np.bool_]) -> list[dict[str, float]]:
    by_surety = right[np.argsort(-sure, kind="stable")]
    shares = [share / 10 for share in range(1, 11)]
    counts = [max(1, round(share * len(right))) for share in shares]
    return [
        {"coverage": share, "accuracy": float(by_surety[:count].mean())}
        for share, count in zip(shares, counts, strict=True)
    ]


def _latency(texts: Sequence[str], router: Router, embedder: Embedder) -> dict[str, float]:
    took = []
    for text in texts:
        begin = time.perf_counter()
        _routed(embedder.embed([text])[0], router)
        took.append(1000 * (time.perf_counter() - begin))
    return {f"p{share}": float(np.percentile(took, share)) for share in (50, 95, 99)}
