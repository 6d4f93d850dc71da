"""Sparse rows of hashed features: a csr array built in microseconds."""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import Vectors
from slices.errors import MissingExtra


def binary_rows(indices: Sequence[NDArray[np.int32]], dim: int) -> Vectors:
    """Unit rows of binary features, float32 csr array (len(indices), dim).

    Args:
        indices: of each row's features, unique and sorted; an empty one gives a zero row.
    """
    from scipy.sparse import csr_array  # type: ignore[import-untyped]

    counts = np.array([len(row) for row in indices], dtype=np.int32)
    indptr = np.concatenate([[0], counts.cumsum()]).astype(np.int32)
    values = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts).astype(np.float32)
    columns = np.concatenate(indices) if indices else np.zeros(0, np.int32)
    return csr_array((values, columns, indptr), shape=(len(indices), dim))


def require_scipy() -> None:
    """Raise `MissingExtra` unless scikit-learn, which brings scipy, is installed."""
    if find_spec("scipy") is None:
        raise MissingExtra("scikit-learn", "route")
