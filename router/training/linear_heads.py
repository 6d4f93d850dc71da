"""Linear heads and their out-of-fold logits, by scikit-learn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import Vectors
from router.routing.model import Labels
from router.training.augmentation import NO_SOURCE

INVERSE_REGULARIZATION = 5.0  # scikit-learn's C of a head over dense vectors
FOLDS, FEWER_FOLDS, MANY_QUERIES = 5, 3, 5000
Folds = Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]  # (training, held-out) indices of each fold
_MIN_EPOCHS, _MIN_SAMPLES = 8, 50_000  # of gradient descent over sparse rows


@dataclass(frozen=True)
class AugmentedSet:
    """Augmented texts as arrays: sample weights, and the index of the source query or `NO_SOURCE`."""

    vectors: Vectors  # (m, dim)
    labels: Labels  # (m,)
    weights: NDArray[np.float64]  # (m,)
    sources: NDArray[np.int64]  # (m,)

    def derived_from(self, rows: NDArray[np.int64]) -> "AugmentedSet":
        """The texts that derive from the queries `rows`, or from none."""
        kept = np.flatnonzero((self.sources == NO_SOURCE) | np.isin(self.sources, rows))
        return AugmentedSet(
            vectors=self.vectors[kept],
            labels=self.labels[kept],
            weights=self.weights[kept],
            sources=self.sources[kept],
        )


@dataclass(frozen=True)
class TrainingSet:
    """Training data of one head: vectors, labels and weights of queries, and augmented texts."""

    vectors: Vectors  # (n, dim)
    labels: Labels  # (n,)
    augmented: AugmentedSet | None = None
    weights: NDArray[np.float64] | None = None  # (n,); None: all alike


def fit_head(
    data: TrainingSet, rows: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (classes, dim) and bias (classes,) of a class-balanced linear head.

    Logistic regression over dense vectors, modified Huber loss by gradient descent over sparse ones.

    Args:
        rows: indices of the queries to train on, with the augmented texts that derive from no others.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    vectors, labels, weights = _concatenate(data, rows)
    model = _sgd_classifier(len(labels)) if _is_sparse(vectors) else _logistic_regression()
    with threadpool_limits(1):  # small matrices: more threads only wait for each other
        model.fit(vectors, labels, sample_weight=weights)
    coefficients, bias = model.coef_, model.intercept_
    if len(coefficients) == 1:  # two classes share one row: the second's log odds
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        bias = np.concatenate([-bias, bias]) / 2
    return coefficients.astype(np.float32), bias.astype(np.float32)


def out_of_fold_logits(data: TrainingSet, folds: Folds, classes: int) -> NDArray[np.float64]:
    """Logits (n, classes) of every query by a head that was trained without its fold."""
    logits = np.zeros((len(data.labels), classes))
    for train, heldout in folds:
        weights, bias = fit_head(data, train)
        logits[heldout] = np.asarray(data.vectors[heldout] @ weights.T + bias)
    return logits


def stratified_folds(labels: Labels, groups: NDArray[np.int64]) -> Folds:
    """Indices of (training, held-out) queries of each fold, every class in each, no group in two.

    Args:
        groups: of each query, (n,).
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    count = FEWER_FOLDS if len(labels) > MANY_QUERIES else FOLDS
    count = min(count, int(np.bincount(labels).min()))
    if len(np.unique(groups)) == len(groups):
        return list(StratifiedKFold(count, shuffle=True, random_state=0).split(groups, labels))
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    return list(folds.split(groups, labels, groups))


def _concatenate(
    data: TrainingSet, rows: NDArray[np.int64] | None
) -> tuple[Vectors, Labels, NDArray[np.float64]]:
    """Vectors, labels and sample weights of queries and augmented texts together."""
    if rows is None:
        vectors, labels, augmented = data.vectors, data.labels, data.augmented
    else:
        vectors, labels = data.vectors[rows], data.labels[rows]
        augmented = data.augmented.derived_from(rows) if data.augmented else None
    weights = np.ones(len(labels))
    if data.weights is not None:
        weights = data.weights if rows is None else data.weights[rows]
    if augmented is None:
        return vectors, labels, weights
    labels = np.concatenate([labels, augmented.labels])
    weights = np.concatenate([weights, augmented.weights])
    if _is_sparse(vectors):
        from scipy.sparse import vstack  # type: ignore[import-untyped]

        return vstack([vectors, augmented.vectors], format="csr"), labels, weights
    return np.concatenate([vectors, augmented.vectors]), labels, weights


def _logistic_regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=INVERSE_REGULARIZATION, class_weight="balanced", max_iter=500)


def _sgd_classifier(samples: int) -> Any:
    from sklearn.linear_model import SGDClassifier

    return SGDClassifier(
        loss="modified_huber",
        alpha=1e-5,
        class_weight="balanced",
        max_iter=max(_MIN_EPOCHS, _MIN_SAMPLES // samples),
        tol=None,
        average=True,
        random_state=0,
    )


def _is_sparse(vectors: Vectors) -> bool:
    return not isinstance(vectors, np.ndarray)
