"""An in-memory LRU cache of predictions: a repeated question costs a look-up."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from router.routing.cascade import RoutePrediction, RoutePredictor

MAX_ENTRIES = 16_384  # some hundred bytes each


class PredictionCache:
    """A predictor that caches the predictions of the last `size` different texts. Thread-safe.

    Keys are 128-bit hashes, so that no text stays in memory.
    """

    def __init__(self, inner: RoutePredictor, size: int = MAX_ENTRIES) -> None:
        self._inner, self._size = inner, size
        self._cached: OrderedDict[bytes, RoutePrediction] = OrderedDict()
        self._lock = threading.Lock()

    def predict(self, texts: Sequence[str]) -> list[RoutePrediction]:
        """One prediction for each text; misses are predicted in one batch."""
        keys = [_key(text) for text in texts]
        predictions = self._get(keys)
        misses = {key: text for key, text in zip(keys, texts, strict=True) if key not in predictions}
        if misses:
            predictions |= dict(zip(misses, self._inner.predict(list(misses.values())), strict=True))
            self._put({key: predictions[key] for key in misses})
        return [predictions[key] for key in keys]

    def _get(self, keys: Sequence[bytes]) -> dict[bytes, RoutePrediction]:
        with self._lock:
            hits = {key: self._cached[key] for key in keys if key in self._cached}
            for key in hits:
                self._cached.move_to_end(key)
        return hits

    def _put(self, predictions: dict[bytes, RoutePrediction]) -> None:
        with self._lock:
            self._cached |= predictions
            while len(self._cached) > self._size:
                self._cached.popitem(last=False)


def _key(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
