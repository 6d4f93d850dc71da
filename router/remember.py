"""Vectors that were computed before: the same question asked again costs a look-up."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from router.embed import Embedder

REMEMBERED = 4096  # texts; 6 MB of vectors of 384 numbers


class Remembering:
    """An embedder that keeps the vectors of the last `size` different texts. Safe to share by threads.

    Texts are told apart by a hash of 128 bits, so that no text stays in memory.
    """

    def __init__(self, inner: Embedder, size: int = REMEMBERED) -> None:
        self._inner, self._size = inner, size
        self._known: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The inner embedder's, whose vectors these are."""
        return self._inner.name

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of length 1, shape (len(texts), dim); unknown ones are computed in one batch."""
        if not texts:
            return self._inner.embed([])
        keys = [_key(text) for text in texts]
        found = self._recall(keys)
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if new:
            found |= dict(zip(new, self._inner.embed(list(new.values())), strict=True))
            self._keep({key: found[key] for key in new})
        return np.stack([found[key] for key in keys])

    def _recall(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        with self._lock:
            found = {key: self._known[key] for key in keys if key in self._known}
            for key in found:
                self._known.move_to_end(key)
        return found

    def _keep(self, new: dict[bytes, NDArray[np.float32]]) -> None:
        with self._lock:
            self._known |= new
            while len(self._known) > self._size:
                self._known.popitem(last=False)


def _key(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
