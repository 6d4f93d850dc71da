"""An on-disk cache of query embeddings: a refit embeds only new queries, so it takes seconds.

One file for each encoder under `$MOM_HOME/embedders`, holding the vectors that the last fit used. Keys are
128-bit hashes of the texts; an unreadable file counts as an empty one.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import REFERENCE_TEXT, Embedder
from slices import home
from slices.files import atomic

_KEYS, _VECTORS = "keys", "vectors"
_MIN_COSINE = 0.9999  # of the reference text's cached vector to the embedder's


class VectorCache:
    """An embedder of dense vectors that looks them up in the file first."""

    def __init__(self, inner: Embedder, folder: Path | None = None) -> None:
        """Load the cache; it is discarded where `inner` now embeds the reference text differently."""
        self._inner = inner
        self.finetuned = inner.finetuned
        self._path = (
            folder or home.home() / "embedders"
        ) / f"{inner.name.replace('/', '--')}.vectors.safetensors"
        reference = inner.embed([REFERENCE_TEXT])[0]
        self._cached = _read(self._path)
        cached = self._cached.get(_key(REFERENCE_TEXT))
        if cached is None or cached.shape != reference.shape or float(cached @ reference) < _MIN_COSINE:
            self._cached = {_key(REFERENCE_TEXT): reference}
        self._used = {_key(REFERENCE_TEXT): reference}

    @property
    def name(self) -> str:
        """The inner embedder's name."""
        return self._inner.name

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, float32 (len(texts), dim); misses are embedded in one batch."""
        keys = [_key(text) for text in texts]
        misses = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._cached}
        if misses:
            self._cached |= dict(zip(misses, self._inner.embed(list(misses.values())), strict=True))
        self._used |= {key: self._cached[key] for key in keys}
        return np.stack([self._cached[key] for key in keys]) if keys else self._inner.embed([])

    def save(self) -> None:
        """Write the vectors that were requested since the cache was loaded."""
        from safetensors.numpy import save

        keys = np.frombuffer(b"".join(self._used), dtype=np.uint8).reshape(-1, 16)
        data = save({_KEYS: keys.copy(), _VECTORS: np.stack(list(self._used.values()))})
        with atomic.staged(self._path, force=True) as partial:
            partial.write_bytes(data)


def _read(path: Path) -> dict[bytes, NDArray[np.float32]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(path.read_bytes())
        keys, vectors = arrays[_KEYS], arrays[_VECTORS]
    except (OSError, SafetensorError, KeyError):
        return {}
    if keys.dtype != np.uint8 or keys.shape != (len(vectors), 16) or vectors.dtype != np.float32:
        return {}
    return {key.tobytes(): vector for key, vector in zip(keys, vectors, strict=True)}


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
