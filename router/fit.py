"""Labelled queries to a fitted router: a linear head, its temperature, and how far is too far.

Everything that sets a limit is measured out of fold, on queries the head had not seen. Nothing here
reads or writes a file; scikit-learn is used here and nowhere else.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.decide import GENERAL, Router, Thresholds, nearest, softmax
from router.embed import PROBE, Embedder
from router.errors import BadTraining
from slices.errors import MissingExtra

STRENGTH = 3.0  # inverse regularisation of the head
ACCEPT = 0.95  # share of unseen in-domain queries that lie within the distance threshold
FOLDS = 5


def fit(queries: Sequence[tuple[str, str]], embedder: Embedder, accept: float = ACCEPT) -> Router:
    """Fit a router on `queries`, pairs of (text, domain). The class `general` means "no expert".

    Raises:
        BadTraining: fewer than two domains, a domain with fewer than two queries, or an empty query.
        MissingExtra: scikit-learn is not installed.
    """
    if find_spec("sklearn") is None:
        raise MissingExtra("scikit-learn", "route")
    queries = list(dict.fromkeys(queries))
    _check(queries)
    classes = tuple(sorted({domain for _, domain in queries}))
    vectors = embedder.embed([text for text, _ in queries])
    labels = np.array([classes.index(domain) for _, domain in queries], dtype=np.int32)
    logits, distance = _out_of_fold(vectors, labels, classes)
    inside = _in_domain(labels, classes)
    weights, bias = _head(vectors, labels)
    return Router(
        embedder=embedder.name,
        classes=classes,
        weights=weights,
        bias=bias,
        temperature=temperature(logits, labels),
        prototypes=vectors,
        labels=labels,
        thresholds=Thresholds(distance=float(np.quantile(distance[inside], accept))),
        probe=embedder.embed([PROBE])[0],
        queries_sha256=digest(queries),
    )


def digest(queries: Iterable[tuple[str, str]]) -> str:
    """A fingerprint of labelled queries that ignores their order and repeats. Hex sha256."""
    lines = sorted({f"{domain}\x00{text}" for text, domain in queries})
    return hashlib.sha256("\x01".join(lines).encode("utf-8", "replace")).hexdigest()


def temperature(logits: NDArray[np.float64], labels: NDArray[np.int32]) -> float:
    """What to divide `logits` (n, classes) by so that held-out `labels` (n,) are likeliest. 0.05 to 20."""
    rows = np.arange(len(labels))

    def surprise(candidate: float) -> float:
        return float(-np.log(np.maximum(softmax(logits / candidate)[rows, labels], 1e-12)).mean())

    return float(min(np.geomspace(0.05, 20.0, 241), key=surprise))


def _check(queries: Sequence[tuple[str, str]]) -> None:
    counts = Counter(domain for _, domain in queries)
    if len(counts) < 2:
        raise BadTraining(f"a router needs queries of two domains or more, got {sorted(counts)}")
    if scarce := sorted(domain for domain, count in counts.items() if count < 2):
        raise BadTraining(f"these domains have fewer than two different queries: {', '.join(scarce)}")
    if set(counts) == {GENERAL}:
        raise BadTraining("a router needs a domain besides 'general'")
    if empty := sorted({domain for text, domain in queries if not text.strip()}):
        raise BadTraining(f"an empty query in {', '.join(empty)}")


def _out_of_fold(
    vectors: NDArray[np.float32], labels: NDArray[np.int32], classes: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits (n, classes) and nearest in-domain distances (n,), each from folds without that query."""
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(min(FOLDS, int(np.bincount(labels).min())), shuffle=True, random_state=0)
    logits = np.zeros((len(labels), len(classes)))
    distance = np.zeros(len(labels))
    for seen, unseen in folds.split(vectors, labels):
        weights, bias = _head(vectors[seen], labels[seen])
        logits[unseen] = vectors[unseen] @ weights.T + bias
        examples = vectors[seen][_in_domain(labels[seen], classes)]
        distance[unseen] = nearest(vectors[unseen], examples)
    return logits, distance


def _in_domain(labels: NDArray[np.int32], classes: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which queries belong to an expert, shape (n,)."""
    general = classes.index(GENERAL) if GENERAL in classes else -1
    return np.not_equal(labels, general)


def _head(
    vectors: NDArray[np.float32], labels: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (classes, dim) and bias (classes,) of a class-balanced logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    model: Any = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=2000)
    with threadpool_limits(1):  # small matrices: more threads only wait for each other
        model.fit(vectors, labels)
    weights, bias = model.coef_, model.intercept_
    if len(weights) == 1:  # two classes share one row: the second's log-odds
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights.astype(np.float32), bias.astype(np.float32)
