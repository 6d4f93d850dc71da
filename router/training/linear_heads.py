"""Linear heads and what they make of queries they have not seen. scikit-learn is used here, as in `words`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import Vectors
from router.routing.model import Labels
from router.training.augmentation import NONE

STRENGTH = 5.0  # inverse regularisation of a head over dense vectors
FOLDS, FEWER_FOLDS, MANY = 5, 3, 5000
_PASSES, _ROWS = 8, 50_000  # over sparse rows: passes at least, rows seen at least


@dataclass(frozen=True)
class Hinted:
    """Hints: what each counts, where a query counts 1, and which query it is made of, `NONE` for none."""

    vectors: Vectors  # (m, dim)
    labels: Labels  # (m,)
    counts: NDArray[np.float64]  # (m,)
    of: NDArray[np.int64]  # (m,)

    def only(self, rows: NDArray[np.int64]) -> "Hinted":
        """Those that are made of the queries `rows`, or of none."""
        kept = np.flatnonzero((self.of == NONE) | np.isin(self.of, rows))
        return Hinted(self.vectors[kept], self.labels[kept], self.counts[kept], self.of[kept])


@dataclass(frozen=True)
class Taught:
    """What one head learns from: vectors and labels of queries, and of hints."""

    vectors: Vectors  # (n, dim)
    labels: Labels  # (n,)
    hints: Hinted | None = None


def learn(
    taught: Taught, rows: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (classes, dim) and bias (classes,) of a class-balanced linear head, from all or some queries,
    and the hints that are made of no others.

    Dense vectors get a logistic regression, sparse ones the modified Huber loss by gradient descent.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    vectors, labels, shares = _stacked(taught, rows)
    model = _of_sparse(len(labels)) if _is_sparse(vectors) else _of_dense()
    with threadpool_limits(1):  # small matrices: more threads only wait for each other
        model.fit(vectors, labels, sample_weight=shares)
    weights, bias = model.coef_, model.intercept_
    if len(weights) == 1:  # two classes share one row: the second's log-odds
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights.astype(np.float32), bias.astype(np.float32)


def unseen_logits(taught: Taught, folds: Sequence[tuple[Any, Any]], classes: int) -> NDArray[np.float64]:
    """Logits (n, classes) of every query by a head that was fitted without it."""
    found = np.zeros((len(taught.labels), classes))
    for seen, unseen in folds:
        weights, bias = learn(taught, seen)
        found[unseen] = np.asarray(taught.vectors[unseen] @ weights.T + bias)
    return found


def split(labels: Labels) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Folds of queries (seen, unseen), with every class in each."""
    from sklearn.model_selection import StratifiedKFold

    wanted = FEWER_FOLDS if len(labels) > MANY else FOLDS
    folds = StratifiedKFold(min(wanted, int(np.bincount(labels).min())), shuffle=True, random_state=0)
    return list(folds.split(np.zeros(len(labels)), labels))


def _stacked(taught: Taught, rows: NDArray[np.int64] | None) -> tuple[Vectors, Labels, NDArray[np.float64]]:
    """Queries and hints together, and what each counts."""
    if rows is None:
        vectors, labels, hints = taught.vectors, taught.labels, taught.hints
    else:
        vectors, labels = taught.vectors[rows], taught.labels[rows]
        hints = taught.hints.only(rows) if taught.hints else None
    counts = np.ones(len(labels))
    if hints is None:
        return vectors, labels, counts
    both = np.concatenate([labels, hints.labels]), np.concatenate([counts, hints.counts])
    if _is_sparse(vectors):
        from scipy.sparse import vstack  # type: ignore[import-untyped]

        return vstack([vectors, hints.vectors], format="csr"), *both
    return np.concatenate([vectors, hints.vectors]), *both


def _of_dense() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=500)


def _of_sparse(count: int) -> Any:
    from sklearn.linear_model import SGDClassifier

    return SGDClassifier(
        loss="modified_huber",
        alpha=1e-5,
        class_weight="balanced",
        max_iter=max(_PASSES, _ROWS // count),
        tol=None,
        average=True,
        random_state=0,
    )


def _is_sparse(vectors: Vectors) -> bool:
    return not isinstance(vectors, np.ndarray)
