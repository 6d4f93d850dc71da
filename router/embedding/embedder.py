"""Text to unit vectors: one Protocol for every embedder, what of a text is read, and a hashing fake.

Nothing here knows of domains or experts. Only what is routed on is capped; the expert reads it all.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

ROUTED_CHARS = 400
PROBE = "How does an enzyme lower the activation energy of a reaction?"  # tells embedders apart

Vectors: TypeAlias = Any  # float32 (texts, dim) of unit rows: an array, or a csr_array where most is zero


class Embedder(Protocol):
    """Turns texts into unit vectors."""

    @property
    def name(self) -> str:
        """What the vectors come from; a router works only with the embedders it was fitted on."""
        ...

    @property
    def tuned(self) -> bool:
        """Whether it learned labelled queries itself (`mom route tune`), so those say little of others."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of length 1, float32 (len(texts), dim)."""
        ...


def routed_text(text: str, limit: int = ROUTED_CHARS) -> str:
    """The head and the tail of `text`, `limit` characters in all, without lone surrogates.

    A long prompt says at its beginning or at its end what it wants, and time grows with length.
    """
    if len(text) > limit:
        tail = limit // 2
        text = f"{text[: limit - tail - 1]}\n{text[-tail:]}"
    return text.encode("utf-8", "replace").decode("utf-8")


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1, float32, shape as given; a row of zeros stays one."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    made: NDArray[np.float32] = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return made


class HashEmbedder:
    """Hashed character trigrams: deterministic and fast, knows spelling and no meaning. For tests."""

    tuned = False

    def __init__(self, dim: int = 256) -> None:
        self.dim = dim

    @property
    def name(self) -> str:
        """The method and its size."""
        return f"hash-{self.dim}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of length 1, shape (len(texts), dim)."""
        counts = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            padded = f"  {routed_text(text).lower()} ".encode()
            for start in range(len(padded) - 2):
                counts[row, crc32(padded[start : start + 3]) % self.dim] += 1
        return unit(np.sqrt(counts))

    reads = 512

    def count(self, texts: Sequence[str]) -> list[int]:
        """Words of each text."""
        return [len(text.split()) for text in texts]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As `embed`."""
        return self.embed(texts)
