"""The quantization grid that weights lie on, where they were dequantized from a quantized file.

Such weights are representable in their old type: quantizing them to it again gives them back, and gives them
back too after a change that is smaller than half a step of the grid.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from slices.gguf.tensor_types import block_size
from slices.quant.requantize import requantize

# Fewest bits first: the values of a type are often representable in a larger one as well.
GRID_TYPES = ("Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0")
# Relative error of requantizing below which weights lie on the type's grid. Rounding to bf16 alone gives
# .0015, and the k-quants' scales, which are found anew, up to .003; off the grid Q6_K gives .018, Q5_0 .04 to
# .06 and Q8_0 .0052 (measured on Gemma 3 270M, docs/log.md).
_MAX_ERROR = 0.005
_MAX_ERRORS: Mapping[str, float] = {"Q8_0": 0.0025}


def find_grid(rows: NDArray[np.float32]) -> str | None:
    """The type of fewest bits on whose grid most of `rows` (rows, columns) lie, None if there is none."""
    norms = np.linalg.norm(rows, axis=1)
    rows, norms = rows[norms > 0], norms[norms > 0]
    if not len(rows):
        return None
    for type in GRID_TYPES:
        if rows.shape[1] % block_size(type):
            continue
        errors = np.linalg.norm(requantize(rows, type) - rows, axis=1) / norms
        if np.median(errors) <= _MAX_ERRORS.get(type, _MAX_ERROR):
            return type
    return None
