"""Hashed word unigrams and bigrams: exact lexical features beside the semantic ones of an encoder.

Feature hashing is stateless: nothing is fitted and nothing has to be stored.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import Vectors, truncate_middle
from router.embedding.sparse import binary_rows, require_scipy

DIM = 2**18
_TOKEN = re.compile(r"\b\w+\b|[^\w\s]")  # one-character words and punctuation as well: `x`, `{`, `%`


class WordNgramEmbedder:
    """Binary hashed word unigrams and bigrams of a text, in lower case. Thread-safe."""

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
        """Unit rows, float32 csr array (len(texts), dim); a text without words is a zero row."""
        return binary_rows([_ngram_indices(truncate_middle(text), self._dim) for text in texts], self._dim)


def embedder_name(dim: int = DIM) -> str:
    """The name of a `WordNgramEmbedder` of dimension `dim`."""
    return f"word-ngrams-{dim}"


def _ngram_indices(text: str, dim: int) -> NDArray[np.int32]:
    """Feature indices of a text's n-grams, unique and sorted."""
    words = _TOKEN.findall(text.lower())
    ngrams = [*words, *map(" ".join, pairwise(words))]
    indices = [crc32(ngram.encode()) % dim for ngram in ngrams]
    return np.unique(np.array(indices, dtype=np.int32))
