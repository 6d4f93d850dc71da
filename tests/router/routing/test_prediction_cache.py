"""A remembered reading is the one that was made, and few are made twice."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from router.routing.cascade import Reading
from router.routing.prediction_cache import Remembering


class Counting:
    """Notes what it is asked, and says of a text how long it is."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def read(self, texts: Sequence[str]) -> list[Reading]:
        self.asked += texts
        return [Reading(("a",), np.ones(1), float(len(text)), 0.0, "counting") for text in texts]


def lengths(readings: Sequence[Reading]) -> list[float]:
    return [reading.belonging for reading in readings]


def test_what_is_known_is_not_read_again() -> None:
    inner = Counting()
    cache = Remembering(inner)
    texts = ["a", "bb", "a", "ccc\ud800"]
    assert lengths(cache.read(texts)) == [1, 2, 1, 4]
    assert lengths(cache.read(texts[::-1])) == [4, 1, 2, 1]
    assert inner.asked == ["a", "bb", "ccc\ud800"]
    assert cache.read([]) == []


def test_the_oldest_is_forgotten_and_use_keeps_young() -> None:
    inner = Counting()
    cache = Remembering(inner, size=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        cache.read([text])
    assert inner.asked == ["a", "b", "c", "b"]


def test_more_texts_at_once_than_are_kept() -> None:
    texts = ["x" * number for number in range(50)]
    assert lengths(Remembering(Counting(), size=3).read(texts)) == list(range(50))


def test_threads_share_one() -> None:
    cache, texts = Remembering(Counting(), size=8), ["x" * (number % 11) for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: cache.read([text])[0], texts))
    assert lengths(found) == [len(text) for text in texts]
