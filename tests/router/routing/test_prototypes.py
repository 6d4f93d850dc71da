"""Prototypes: centroids of many questions, nearest similarity and k-nearest-neighbour votes, by hand."""

import numpy as np
import pytest

from router.routing.cascade import Cascade
from router.routing.prototypes import (
    MAX_PER_CLASS,
    NEIGHBORS,
    TEMPERATURE,
    build_prototypes,
    cosine_similarities,
    knn_logits,
    nearest_similarity,
    out_of_fold_votes,
)
from router.training.fit import fit
from tests.router.pairs_on_a_ring import Ring, ring


def units(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_few_questions_stay_and_many_are_clustered() -> None:
    labels = np.repeat([0, 1, 2], [100, 400, 400]).astype(np.int32)
    prototypes, classes = build_prototypes(units(900), labels, 3)
    assert np.bincount(classes).tolist() == [100, MAX_PER_CLASS, MAX_PER_CLASS]
    assert np.array_equal(prototypes[:100], units(900)[:100])
    assert np.linalg.norm(prototypes, axis=1) == pytest.approx(1, abs=1e-5)


def test_only_experts_questions_are_near() -> None:
    similarities = np.array([[0.2, 0.9, 0.5]], np.float32)
    assert nearest_similarity(similarities, np.array([True, False, True])) == pytest.approx(0.5)
    assert nearest_similarity(similarities, np.array([False, False, False])) == pytest.approx(-1)


def test_votes_by_hand() -> None:
    similarities = np.array([[1.0, 1.0 - TEMPERATURE, 1.0 - TEMPERATURE]], np.float32)
    shares = np.exp(knn_logits(similarities, np.array([0, 1, 1], np.int32), 3))[0] - 1e-3
    assert shares == pytest.approx([1 / (1 + 2 / np.e), 2 / np.e / (1 + 2 / np.e), 0], abs=1e-6)


def test_only_the_nearest_vote_and_none_is_uniform() -> None:
    similarities = np.array([[0.9] * NEIGHBORS + [0.89] * 50], np.float32)
    labels = np.repeat([0, 1], [NEIGHBORS, 50]).astype(np.int32)
    assert np.exp(knn_logits(similarities, labels, 2)[0]) == pytest.approx([1.001, 0.001])
    assert np.ptp(knn_logits(np.zeros((2, 0), np.float32), np.zeros(0, np.int32), 4)) == 0


def test_no_query_votes_for_itself() -> None:
    """Labels are random, so votes are right more often than chance only with a query's own label."""
    vectors, labels = units(300), np.random.default_rng(1).integers(0, 2, 300).astype(np.int32)
    order = np.arange(300)
    folds = [(order[order % 3 != at], order[order % 3 == at]) for at in range(3)]
    nearest, logits = out_of_fold_votes(vectors, labels, np.array([True, True]), folds)
    assert nearest.max() < 0.999
    assert (logits.argmax(axis=1) == labels).mean() < 0.6
    in_sample = knn_logits(cosine_similarities(vectors, vectors), labels, 2)
    assert (in_sample.argmax(axis=1) == labels).mean() > 0.7


def test_votes_separate_what_no_hyperplane_does() -> None:
    """Two domains alternate around a circle: a linear head is at chance, the pooled router is not."""
    router = fit(ring(240), [Ring()])
    (stage,) = router.stages
    assert stage.pool_weights[1] > 0.2

    asked = ring(80, shift=0.5)
    readings = Cascade(router, [Ring()]).predict([text for text, _ in asked])
    right = [
        r.classes[int(r.probabilities.argmax())] == domain
        for r, (_, domain) in zip(readings, asked, strict=True)
    ]
    assert np.mean(right) > 0.9
    linear = router.heads[0].logits(Ring().embed([text for text, _ in asked])).argmax(axis=1)
    assert np.mean([router.classes[at] == d for at, (_, d) in zip(linear, asked, strict=True)]) < 0.7
