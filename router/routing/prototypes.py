"""Known questions of every class, or centres of many: how near a text is to an expert's, and how they vote.

A linear head draws one border around a domain; the votes of the nearest prototypes follow its corners.
Fitting needs scikit-learn, reading only numpy.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router.routing.model import Labels

PER_CLASS = 300  # prototypes of a class; more questions are drawn together
VOTERS = 15  # nearest prototypes that vote
WARMTH = 0.08  # of cosine: one that is farther by so much counts 1/e (Wu et al., 2018, take .07)
_NONE = 1e-3  # a class without votes has about this share

Floats = NDArray[np.float64]
Dense = NDArray[np.float32]


def cosines(vectors: Dense, prototypes: Dense) -> Dense:
    """Of each of `vectors` (n, dim) with each of `prototypes` (m, dim), (n, m); rows are of length 1."""
    found: Dense = vectors @ prototypes.T
    return found


def nearest(found: Dense, own: NDArray[np.bool_]) -> Floats:
    """The highest of cosines (n, m) with prototypes that are experts' `own` (m,), (n,); -1 without any."""
    near: Floats = found[:, own].max(axis=1, initial=-1.0).astype(np.float64)
    return near


def votes(found: Dense, labels: Labels, classes: int) -> Floats:
    """Logits (n, classes) of what the nearest prototypes say, from cosines (n, m) and their `labels` (m,)."""
    count = min(VOTERS, found.shape[1])
    rows = np.arange(len(found))[:, None]
    chosen = (
        np.argpartition(-found, count - 1, axis=1)[:, :count] if count else np.zeros((len(found), 0), int)
    )
    weights = np.exp((found[rows, chosen].astype(np.float64) - 1) / WARMTH)
    total = np.zeros((len(found), classes))
    np.add.at(total, (rows, labels[chosen]), weights)
    shares: Floats = total / np.maximum(total.sum(axis=1, keepdims=True), 1e-300)
    logits: Floats = np.log(shares + _NONE)
    return logits


def prototypes_of(vectors: Dense, labels: Labels, classes: int) -> tuple[Dense, Labels]:
    """Prototypes (m, dim) of unit length and their labels (m,): a class's questions, or centres of many."""
    found = [_centres(vectors[labels == number]) for number in range(classes)]
    named = np.repeat(np.arange(classes, dtype=np.int32), [len(each) for each in found])
    return np.concatenate(found), named


def unseen(
    vectors: Dense,
    labels: Labels,
    own: NDArray[np.bool_],
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> tuple[Floats, Floats]:
    """`nearest` (n,) and `votes` (n, classes) of every query, by prototypes that were made without it.

    `own` (classes,) says which classes are experts'.
    """
    near, said = np.zeros(len(labels)), np.zeros((len(labels), len(own)))
    for seen, rest in folds:
        examples, named = prototypes_of(vectors[seen], labels[seen], len(own))
        found = cosines(vectors[rest], examples)
        near[rest], said[rest] = nearest(found, own[named]), votes(found, named, len(own))
    return near, said


def _centres(vectors: Dense) -> Dense:
    if len(vectors) <= PER_CLASS:
        return vectors
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    means = MiniBatchKMeans(PER_CLASS, batch_size=2048, n_init=1, max_iter=20, random_state=0)
    with threadpool_limits(1):
        centres = means.fit(vectors).cluster_centers_
    found: Dense = (centres / np.linalg.norm(centres, axis=1, keepdims=True)).astype(np.float32)
    return found
