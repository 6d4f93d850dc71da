"""Words and pairs of words, hashed: what a text says to the letter, where embeddings know what it means.

Nothing is learned here, so nothing has to be kept.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import Vectors, routed_text
from router.embedding.sparse import rows_of
from slices.errors import MissingExtra

PLACES = 2**18
_TOKEN = r"(?u)\b\w+\b|[^\w\s]"  # words of one letter and signs as well: `x`, `{`, `%`


class WordEmbedder:
    """Which words and pairs of neighbours a text has, each hashed to a place. Safe to share by threads."""

    tuned = False

    def __init__(self, places: int = PLACES) -> None:
        """Set up the hashing.

        Raises:
            MissingExtra: scikit-learn is not installed.
        """
        if find_spec("sklearn") is None:
            raise MissingExtra("scikit-learn", "route")
        from sklearn.feature_extraction.text import HashingVectorizer

        self._words = HashingVectorizer(ngram_range=(1, 2), token_pattern=_TOKEN).build_analyzer()
        self._places = places

    @property
    def name(self) -> str:
        """The method and its size."""
        return f"words-{self._places}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Rows of length 1, a csr array (len(texts), places); a text without words is a row of zeros."""
        return rows_of([self._hashed(routed_text(text)) for text in texts], self._places)

    def _hashed(self, text: str) -> NDArray[np.int32]:
        """The places of a text's words and pairs, each once, in rising order.

        As scikit-learn's `HashingVectorizer` has them, whose checks take seven times as long for one text.
        """
        from sklearn.utils import murmurhash3_32

        found = [abs(murmurhash3_32(each)) % self._places for each in self._words(text)]
        return np.unique(np.array(found, dtype=np.int32))
