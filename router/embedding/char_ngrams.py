"""Runs of letters, hashed: what outlives a slip of the keyboard, an ending, or a word that is new.

As the subwords of fastText (Bojanowski et al., 2017, arXiv 1607.04606), but across words too. Nothing is
learned here, so nothing has to be kept.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import Vectors, routed_text
from router.embedding.sparse import rows_of
from slices.errors import MissingExtra

PLACES = 2**18
LENGTHS = (3, 4, 5, 6)
_STEP, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)  # odd, bits well spread


class LetterEmbedder:
    """Which runs of letters, signs and single spaces a text has, each hashed. Safe to share by threads."""

    tuned = False

    def __init__(self, places: int = PLACES) -> None:
        """Set up the hashing.

        Raises:
            MissingExtra: scikit-learn, which brings scipy, is not installed.
        """
        if find_spec("scipy") is None:
            raise MissingExtra("scikit-learn", "route")
        self._places = places

    @property
    def name(self) -> str:
        """The method and its size."""
        return f"letters-{self._places}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Rows of length 1, a csr array (len(texts), places); a text without letters is a row of zeros."""
        return rows_of([_runs(routed_text(text), self._places) for text in texts], self._places)


def _runs(text: str, places: int) -> NDArray[np.int32]:
    """The places of a text's runs, each once, in rising order."""
    words = text.lower().split()
    if not words:
        return np.zeros(0, np.int32)
    letters = np.frombuffer(f" {' '.join(words)} ".encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    hashed = [_hashed(letters, length) for length in LENGTHS if length <= len(letters)]
    return np.unique(np.concatenate(hashed) % np.uint64(places)).astype(np.int32)


def _hashed(letters: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """A number for every run of `length` letters."""
    count = len(letters) - length + 1
    found = np.full(count, length, dtype=np.uint64)
    for at in range(length):
        found = found * _STEP + letters[at : at + count]
    found = (found ^ (found >> np.uint64(29))) * _MIX
    return found ^ (found >> np.uint64(32))
