"""Hashed word unigrams and bigrams: exact lexical features beside the semantic ones of an encoder.

Feature hashing is stateless: nothing is fitted and nothing has to be stored.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import Vectors, truncate_middle
from router.embedding.sparse import binary_rows
from slices.errors import MissingExtra

DIM = 2**18
_TOKEN = r"(?u)\b\w+\b|[^\w\s]"  # one-character words and punctuation as well: `x`, `{`, `%`


class WordNgramEmbedder:
    """Binary hashed word unigrams and bigrams of a text. Thread-safe."""

    finetuned = False

    def __init__(self, dim: int = DIM) -> None:
        """Build scikit-learn's analyzer.

        Raises:
            MissingExtra: scikit-learn is not installed.
        """
        if find_spec("sklearn") is None:
            raise MissingExtra("scikit-learn", "route")
        from sklearn.feature_extraction.text import HashingVectorizer

        self._analyze = HashingVectorizer(ngram_range=(1, 2), token_pattern=_TOKEN).build_analyzer()
        self._dim = dim

    @property
    def name(self) -> str:
        """The method and its dimension."""
        return embedder_name(self._dim)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit rows, float32 csr array (len(texts), dim); a text without words is a zero row."""
        return binary_rows([self._ngram_indices(truncate_middle(text)) for text in texts], self._dim)

    def _ngram_indices(self, text: str) -> NDArray[np.int32]:
        """Feature indices of a text's n-grams, unique and sorted.

        The same as scikit-learn's `HashingVectorizer`, whose checks take seven times as long for one text.
        """
        from sklearn.utils import murmurhash3_32

        indices = [abs(murmurhash3_32(ngram)) % self._dim for ngram in self._analyze(text)]
        return np.unique(np.array(indices, dtype=np.int32))


def embedder_name(dim: int = DIM) -> str:
    """The name of a `WordNgramEmbedder` of dimension `dim`."""
    return f"word-ngrams-{dim}"
