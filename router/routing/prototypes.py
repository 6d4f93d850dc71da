"""Prototypes: questions of every class, or k-means centroids of many, for k-nearest-neighbour votes.

A linear head draws one hyperplane around a domain; the votes of the nearest prototypes follow its corners.
Fitting needs scikit-learn, prediction only numpy.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router.routing.model import Labels

MAX_PER_CLASS = 300  # prototypes; more questions are clustered to so many
NEIGHBORS = 15  # nearest prototypes that vote
TEMPERATURE = 0.08  # of cosine similarities in the votes' softmax (Wu et al., 2018, take .07)
_SMOOTHING = 1e-3  # added to every class's share of the votes

Floats = NDArray[np.float64]
Dense = NDArray[np.float32]


def cosine_similarities(vectors: Dense, prototypes: Dense) -> Dense:
    """Cosine similarities (n, m) of unit vectors (n, dim) and unit prototypes (m, dim), or (n, 0)."""
    if not len(prototypes):
        return np.zeros((vectors.shape[0], 0), np.float32)
    similarities: Dense = vectors @ prototypes.T
    return similarities


def nearest_similarity(similarities: Dense, expert: NDArray[np.bool_]) -> Floats:
    """The highest similarity to a prototype of an expert's class, (n,); -1 without any.

    Args:
        similarities: cosine similarities to the prototypes, (n, m).
        expert: which prototypes are of an expert's class, (m,).
    """
    nearest: Floats = similarities[:, expert].max(axis=1, initial=-1.0).astype(np.float64)
    return nearest


def knn_logits(similarities: Dense, labels: Labels, classes: int) -> Floats:
    """Logits (n, classes) of the votes of the nearest prototypes, weighted by exp(similarity / TEMPERATURE).

    Args:
        similarities: cosine similarities to the prototypes, (n, m).
        labels: the prototypes' classes, (m,).
    """
    count = min(NEIGHBORS, similarities.shape[1])
    rows = np.arange(len(similarities))[:, None]
    neighbors = (
        np.argpartition(-similarities, count - 1, axis=1)[:, :count]
        if count
        else np.zeros((len(similarities), 0), int)
    )
    weights = np.exp((similarities[rows, neighbors].astype(np.float64) - 1) / TEMPERATURE)
    votes = np.zeros((len(similarities), classes))
    np.add.at(votes, (rows, labels[neighbors]), weights)
    shares: Floats = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1e-300)
    logits: Floats = np.log(shares + _SMOOTHING)
    return logits


def build_prototypes(
    vectors: Dense, labels: Labels, classes: int, weights: Floats | None = None
) -> tuple[Dense, Labels]:
    """Unit prototypes (m, dim) and their labels (m,): the questions of a class, or centroids of many.

    Args:
        weights: sample weights, (n,), by default all alike; those of zero vectors do not count.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    known = vectors.any(axis=1)
    by_class = [
        _centroids(vectors[chosen], weights[chosen])
        for number in range(classes)
        for chosen in [known & (labels == number)]
    ]
    counts = [len(prototypes) for prototypes in by_class]
    return np.concatenate(by_class), np.repeat(np.arange(classes, dtype=np.int32), counts)


def out_of_fold_votes(
    vectors: Dense,
    labels: Labels,
    expert: NDArray[np.bool_],
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    weights: Floats | None = None,
) -> tuple[Floats, Floats]:
    """`nearest_similarity` (n,) and `knn_logits` (n, classes) of every query, by prototypes without its fold.

    Args:
        expert: which classes can have an expert, (classes,).
        folds: indices of (training, held-out) queries.
        weights: as for `build_prototypes`.
    """
    nearest, logits = np.zeros(len(labels)), np.zeros((len(labels), len(expert)))
    for train, heldout in folds:
        part = None if weights is None else weights[train]
        prototypes, classes = build_prototypes(vectors[train], labels[train], len(expert), part)
        similarities = cosine_similarities(vectors[heldout], prototypes)
        nearest[heldout] = nearest_similarity(similarities, expert[classes])
        logits[heldout] = knn_logits(similarities, classes, len(expert))
    return nearest, logits


def _centroids(vectors: Dense, weights: Floats) -> Dense:
    if len(vectors) <= MAX_PER_CLASS:
        return vectors
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    kmeans = MiniBatchKMeans(MAX_PER_CLASS, batch_size=2048, n_init=1, max_iter=20, random_state=0)
    with threadpool_limits(1):
        centers = kmeans.fit(vectors, sample_weight=weights).cluster_centers_
    centroids: Dense = (centers / np.linalg.norm(centers, axis=1, keepdims=True)).astype(np.float32)
    return centroids
