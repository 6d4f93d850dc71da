"""Adapts a fitted router to more labelled queries in seconds, without the data that it was fitted on.

The logits of every head stay as they are, plus a change that is linear in the query's vector and fitted for
the domains of the new queries alone: multinomial logistic regression with the fitted logits as offsets. A new
domain is a change from zero. Queries that the router knows, the example queries of its domains or, for dense
vectors, its prototypes, stand against it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import REFERENCE_TEXT, Embedder
from router.errors import BadTraining
from router.routing.model import Labels, LinearHead, Router, Stage, softmax
from router.training.dataset import LabelledQuery
from router.training.example_queries import read_example_queries
from router.training.weighting import clean

PENALTY = 0.005  # of the squared change, where a query's loss weighs 1
MAX_KNOWN = 3000  # example queries that stand against new ones in sparse heads
_MAX_ITERATIONS = 200
Floats = NDArray[np.float64]


def adapt(
    router: Router,
    embedders: Sequence[Embedder],
    queries: Sequence[LabelledQuery],
    known: Sequence[LabelledQuery] | None = None,
) -> Router:
    """`router` with `queries` learned, and with the domains among them that it does not know.

    Args:
        embedders: of the router, in its order.
        known: labelled queries of its domains, default the example queries.

    Raises:
        BadTraining: there are no queries, or a new domain has fewer than two.
    """
    queries = clean(queries)
    known = clean(read_example_queries() if known is None else known, router.classes)
    known = _sample(known, MAX_KNOWN)
    if not queries:
        raise BadTraining("there are no labelled queries to learn from")
    classes = (*router.classes, *sorted({query.domain for query in queries} - set(router.classes)))
    for name in classes[len(router.classes) :]:
        if sum(query.domain == name for query in queries) < 2:
            raise BadTraining(f"domain {name} has fewer than two different queries")
    labels = _labels(queries, classes)
    heads, vectors = [], []
    for head, embedder in zip(router.heads, embedders, strict=True):
        vectors.append(embedder.embed([query.text for query in queries]))
        against = _known_vectors(router, head, embedder, known, classes)
        heads.append(_adapted_head(head, embedder, (vectors[-1], labels), against, len(classes)))
    stages = tuple(_adapted_stage(stage, vectors[stage.head_count - 1], labels) for stage in router.stages)
    return replace(router, classes=classes, heads=tuple(heads), stages=stages)


def _sample(queries: Sequence[LabelledQuery], count: int) -> list[LabelledQuery]:
    order = np.random.default_rng(0).permutation(len(queries))[:count]
    return [queries[at] for at in sorted(order.tolist())]


def _labels(queries: Sequence[LabelledQuery], classes: Sequence[str]) -> Labels:
    return np.array([classes.index(query.domain) for query in queries], dtype=np.int32)


def _known_vectors(
    router: Router,
    head: LinearHead,
    embedder: Embedder,
    known: Sequence[LabelledQuery],
    classes: Sequence[str],
) -> tuple[Any, Labels]:
    """Vectors (n, dim) and labels (n,) of what the router knows: prototypes where it has some."""
    at = router.heads.index(head) + 1
    stage = next((each for each in router.stages if each.head_count == at), None)
    if stage is not None and len(stage.prototypes):
        return stage.prototypes, stage.labels
    return embedder.embed([query.text for query in known]), _labels(known, classes)


def _adapted_head(
    head: LinearHead,
    embedder: Embedder,
    new: tuple[Any, Labels],
    known: tuple[Any, Labels],
    classes: int,
) -> LinearHead:
    weights = np.zeros((classes, head.weights.shape[1]), np.float32)
    bias = np.zeros(classes, np.float32)
    weights[: len(head.weights)], bias[: len(head.bias)] = head.weights, head.bias
    vectors, labels = _stack(new[0], known[0]), np.concatenate([new[1], known[1]])
    change, shift = _fit_change(vectors, labels, vectors @ weights.T + bias, np.unique(new[1]), len(new[1]))
    rows = np.unique(new[1])
    weights[rows] += change
    bias[rows] += shift
    reference = np.asarray(embedder.embed([REFERENCE_TEXT]) @ weights.T + bias, dtype=np.float32)[0]
    return LinearHead(head.embedder, weights, bias, reference)


def _fit_change(
    vectors: Any, labels: Labels, offsets: Any, rows: NDArray[np.int32], new: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The change of the weights (rows, dim) and of the bias (rows,) of the classes `rows`.

    Args:
        vectors: the new queries first, (n, dim).
        offsets: fitted logits, (n, classes).
        new: the number of new queries, which together weigh as much as all others.
    """
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    columns = _active_columns(vectors[:new])
    active = vectors[:, columns]
    targets = np.eye(offsets.shape[1])[labels]
    known_weight = min(1.0, new / max(1, len(labels) - new))
    weights = np.where(np.arange(len(labels)) < new, 1.0, known_weight)

    def loss_and_gradient(flat: Floats) -> tuple[float, Floats]:
        change = flat.reshape(len(rows), len(columns) + 1)
        logits = np.asarray(offsets, dtype=np.float64).copy()
        logits[:, rows] += active @ change[:, :-1].T + change[:, -1]
        probabilities = softmax(logits)
        likelihood = np.log(np.maximum((probabilities * targets).sum(axis=1), 1e-12))
        error = ((probabilities - targets) * weights[:, None])[:, rows]
        gradient = np.concatenate([(active.T @ error).T, error.sum(axis=0)[:, None]], axis=1)
        gradient[:, :-1] += PENALTY * change[:, :-1]
        return float(-weights @ likelihood + PENALTY / 2 * (change[:, :-1] ** 2).sum()), gradient.ravel()

    start = np.zeros(len(rows) * (len(columns) + 1))
    options = {"maxiter": _MAX_ITERATIONS}
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=options).x
    found = found.reshape(len(rows), -1).astype(np.float32)
    change = np.zeros((len(rows), vectors.shape[1]), np.float32)
    change[:, columns] = found[:, :-1]
    return change, found[:, -1]


def _active_columns(vectors: Any) -> NDArray[np.int64]:
    """The dimensions in which a query is not zero."""
    return np.unique(vectors.nonzero()[1])


def _stack(first: Any, second: Any) -> Any:
    if isinstance(first, np.ndarray):
        return np.concatenate([first, second])
    from scipy.sparse import vstack  # type: ignore[import-untyped]

    return vstack([first, second], format="csr")


def _adapted_stage(stage: Stage, vectors: Any, labels: Labels) -> Stage:
    """The stage with the queries among its prototypes, if it has some."""
    if not len(stage.prototypes):
        return stage
    prototypes = np.concatenate([stage.prototypes, vectors])
    return replace(stage, prototypes=prototypes, labels=np.concatenate([stage.labels, labels]))
