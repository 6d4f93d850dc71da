"""The embedder Protocol (text to unit vectors), input truncation, and a hashing fake for tests.

Knows nothing of domains or experts. Truncation is for routing only; the expert gets the whole text.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

MAX_CHARS = 400  # of a text that is embedded for routing
_LAST_LATIN = "\u024f"  # of Unicode's Latin blocks up to Extended-B
REFERENCE_TEXT = "How does an enzyme lower the activation energy of a reaction?"  # fingerprints an embedder

Vectors: TypeAlias = Any  # float32 (texts, dim) of unit rows: an ndarray, or a csr_array for sparse features


class Embedder(Protocol):
    """Embeds texts as unit vectors."""

    @property
    def name(self) -> str:
        """Identifies the vectors; a router works only with the embedders that it was fitted on."""
        ...

    @property
    def finetuned(self) -> bool:
        """Whether `mom route tune` trained it on labelled queries, which then cannot calibrate a router."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 (len(texts), dim)."""
        ...


def truncate_middle(text: str, limit: int = MAX_CHARS) -> str:
    """The head and the tail of `text`, `limit` characters in all, lone surrogates replaced.

    A long prompt states its request at its beginning or at its end, and latency grows with length.
    """
    if len(text) > limit:
        tail = limit // 2
        text = f"{text[: limit - tail - 1]}\n{text[-tail:]}"
    return text.encode("utf-8", "replace").decode("utf-8")


def is_latin(text: str) -> bool:
    """Whether at most half of the letters of the beginning of a text are of another script than Latin."""
    letters = [char for char in text[:MAX_CHARS] if char.isalpha()]
    return sum(char > _LAST_LATIN for char in letters) <= len(letters) / 2


def l2_normalize(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit rows, float32, same shape; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    normalized: NDArray[np.float32] = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return normalized


class HashEmbedder:
    """Hashed byte trigrams, dense: deterministic, fast, purely lexical. A fake for tests."""

    finetuned = False
    max_tokens = 512

    def __init__(self, dim: int = 256) -> None:
        self.dim = dim

    @property
    def name(self) -> str:
        """The method and its dimension."""
        return f"hash-{self.dim}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, float32 (len(texts), dim)."""
        counts = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            padded = f"  {truncate_middle(text).lower()} ".encode()
            for start in range(len(padded) - 2):
                counts[row, crc32(padded[start : start + 3]) % self.dim] += 1
        return l2_normalize(np.sqrt(counts))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Words of each text."""
        return [len(text.split()) for text in texts]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As `embed`."""
        return self.embed(texts)
