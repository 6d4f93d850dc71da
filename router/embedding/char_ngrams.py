"""Hashed character n-grams: features that survive typos, inflection and out-of-vocabulary words.

Like the subwords of fastText (Bojanowski et al., 2017, arXiv 1607.04606), but across word boundaries too.
Feature hashing is stateless: nothing is fitted and nothing has to be stored.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import Vectors, truncate_middle
from router.embedding.sparse import binary_rows, require_scipy

DIM = 2**18
NGRAM_SIZES = (3, 4, 5, 6)
_STEP, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)  # odd, bits well spread


class CharNgramEmbedder:
    """Binary hashed character n-grams of a text, whitespace collapsed. Thread-safe."""

    finetuned = False

    def __init__(self, dim: int = DIM) -> None:
        """Check that the dependencies are installed.

        Raises:
            MissingExtra: scikit-learn, which brings scipy, is not installed.
        """
        require_scipy()
        self._dim = dim

    @property
    def name(self) -> str:
        """The method and its dimension."""
        return embedder_name(self._dim)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit rows, float32 csr array (len(texts), dim); a text without characters is a zero row."""
        return binary_rows([_ngram_indices(truncate_middle(text), self._dim) for text in texts], self._dim)


def embedder_name(dim: int = DIM) -> str:
    """The name of a `CharNgramEmbedder` of dimension `dim`."""
    return f"char-ngrams-{dim}"


def _ngram_indices(text: str, dim: int) -> NDArray[np.int32]:
    """Feature indices of a text's n-grams, unique and sorted."""
    words = text.lower().split()
    if not words:
        return np.zeros(0, np.int32)
    chars = np.frombuffer(f" {' '.join(words)} ".encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    hashes = [_hash_ngrams(chars, size) for size in NGRAM_SIZES if size <= len(chars)]
    return np.unique(np.concatenate(hashes) % np.uint64(dim)).astype(np.int32)


def _hash_ngrams(chars: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """A 64-bit hash of every n-gram of `size` characters, (len(chars) - size + 1,)."""
    count = len(chars) - size + 1
    hashes = np.full(count, size, dtype=np.uint64)
    for start in range(size):
        hashes = hashes * _STEP + chars[start : start + count]
    hashes = (hashes ^ (hashes >> np.uint64(29))) * _MIX
    return hashes ^ (hashes >> np.uint64(32))
