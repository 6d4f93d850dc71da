"""The LRU cache of predictions: hits equal the first prediction, the oldest entries are evicted."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from router.routing.cascade import RoutePrediction
from router.routing.prediction_cache import PredictionCache


class RecordingPredictor:
    """Records its texts, and predicts their length as the in-domain score."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def predict(self, texts: Sequence[str]) -> list[RoutePrediction]:
        self.texts += texts
        return [
            RoutePrediction(
                classes=("a",),
                probabilities=np.ones(1),
                in_domain=float(len(text)),
                distance=0.0,
                embedder="recording",
            )
            for text in texts
        ]


def lengths(predictions: Sequence[RoutePrediction]) -> list[float]:
    return [each.in_domain for each in predictions]


def test_a_cached_text_is_not_predicted_again() -> None:
    inner = RecordingPredictor()
    cache = PredictionCache(inner)
    texts = ["a", "bb", "a", "ccc\ud800"]
    assert lengths(cache.predict(texts)) == [1, 2, 1, 4]
    assert lengths(cache.predict(texts[::-1])) == [4, 1, 2, 1]
    assert inner.texts == ["a", "bb", "ccc\ud800"]
    assert cache.predict([]) == []


def test_the_least_recently_used_is_evicted() -> None:
    inner = RecordingPredictor()
    cache = PredictionCache(inner, size=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        cache.predict([text])
    assert inner.texts == ["a", "b", "c", "b"]


def test_a_batch_larger_than_the_cache() -> None:
    texts = ["x" * number for number in range(50)]
    assert lengths(PredictionCache(RecordingPredictor(), size=3).predict(texts)) == list(range(50))


def test_threads_share_one() -> None:
    cache, texts = (
        PredictionCache(RecordingPredictor(), size=8),
        ["x" * (number % 11) for number in range(200)],
    )
    with ThreadPoolExecutor(8) as pool:
        predictions = list(pool.map(lambda text: cache.predict([text])[0], texts))
    assert lengths(predictions) == [len(text) for text in texts]
