"""Vectors of a router's queries, kept on disk: a refit embeds only what is new, so it takes seconds.

One file an encoder under `$MOM_HOME/embedders`, with what the last fit used. Texts are told apart by a hash
of 128 bits; a file that cannot be read is as good as none.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import PROBE, Embedder
from slices import home
from slices.files import atomic

_KEYS, _VECTORS = "keys", "vectors"


class Known:
    """An embedder of dense vectors that looks into the file first."""

    def __init__(self, inner: Embedder, folder: Path | None = None) -> None:
        """Read what is known; nothing of it counts where `inner` gives other vectors now."""
        self._inner = inner
        self.tuned = inner.tuned
        place = folder or home.home() / "embedders"
        self._path = place / f"{inner.name.replace('/', '--')}.known.safetensors"
        probe = inner.embed([PROBE])[0]
        self._known = _read(self._path)
        kept = self._known.get(_key(PROBE))
        if kept is None or kept.shape != probe.shape or float(kept @ probe) < 0.9999:
            self._known = {_key(PROBE): probe}
        self._used = {_key(PROBE): probe}

    @property
    def name(self) -> str:
        """The inner embedder's, whose vectors these are."""
        return self._inner.name

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of length 1, shape (len(texts), dim); unknown ones are computed in one batch."""
        keys = [_key(text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if new:
            self._known |= dict(zip(new, self._inner.embed(list(new.values())), strict=True))
        self._used |= {key: self._known[key] for key in keys}
        return np.stack([self._known[key] for key in keys]) if keys else self._inner.embed([])

    def save(self) -> None:
        """Keep the vectors that were asked for."""
        from safetensors.numpy import save

        keys = np.frombuffer(b"".join(self._used), dtype=np.uint8).reshape(-1, 16)
        data = save({_KEYS: keys.copy(), _VECTORS: np.stack(list(self._used.values()))})
        with atomic.staged(self._path, force=True) as partial:
            partial.write_bytes(data)


def _read(path: Path) -> dict[bytes, NDArray[np.float32]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found = load(path.read_bytes())
        keys, vectors = found[_KEYS], found[_VECTORS]
    except (OSError, SafetensorError, KeyError):
        return {}
    if keys.dtype != np.uint8 or keys.shape != (len(vectors), 16) or vectors.dtype != np.float32:
        return {}
    return {key.tobytes(): vector for key, vector in zip(keys, vectors, strict=True)}


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
