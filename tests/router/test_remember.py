"""A remembered vector is the one that was computed, and few are computed twice."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from router.embed import HashEmbedder
from router.remember import Remembering


class Counting(HashEmbedder):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__(16)
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        return super().embed(texts)


def test_what_is_known_is_not_computed_again() -> None:
    inner = Counting()
    cache = Remembering(inner)
    texts = ["a", "b", "a", "c\ud800"]
    first = cache.embed(texts)
    assert (first == HashEmbedder(16).embed(texts)).all()
    assert (cache.embed(texts[::-1]) == first[::-1]).all()
    assert inner.asked == ["a", "b", "c\ud800"]
    assert cache.name == inner.name
    assert cache.embed([]).shape == (0, 16)


def test_the_oldest_is_forgotten_and_use_keeps_young() -> None:
    inner = Counting()
    cache = Remembering(inner, size=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        cache.embed([text])
    assert inner.asked == ["a", "b", "c", "b"]


def test_more_texts_at_once_than_are_kept() -> None:
    cache = Remembering(Counting(), size=3)
    texts = [str(number) for number in range(50)]
    assert (cache.embed(texts) == HashEmbedder(16).embed(texts)).all()


def test_threads_share_one() -> None:
    cache, texts = Remembering(Counting(), size=8), [str(number % 11) for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: cache.embed([text])[0], texts))
    assert (np.stack(found) == HashEmbedder(16).embed(texts)).all()
