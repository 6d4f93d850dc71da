"""Sparse rows of hashed features, for one text in microseconds."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import Vectors


def rows_of(found: Sequence[NDArray[np.int32]], places: int) -> Vectors:
    """Rows of length 1, a csr array (len(found), places) of float32, from the places that each text has.

    A text's places rise and have none twice; without any its row is zero.
    """
    from scipy.sparse import csr_array  # type: ignore[import-untyped]

    counts = np.array([len(each) for each in found], dtype=np.int32)
    ends = np.concatenate([[0], counts.cumsum()]).astype(np.int32)
    values = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts).astype(np.float32)
    columns = np.concatenate(found) if found else np.zeros(0, np.int32)
    return csr_array((values, columns, ends), shape=(len(found), places))
