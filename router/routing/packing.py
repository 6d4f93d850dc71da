"""Compact storage of a router's arrays: 8 bits for the many weights of sparse heads, 16 for prototypes.

A weight w of a class is stored as the signed square root of w / max |w| in 8 bits, so that small weights keep
a relative precision of about a percent; the maximum of each class is stored beside it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MIN_DIM = 4096  # heads of fewer dimensions keep float32
_SCALES = ".scales"
_STEPS = 127


def pack(name: str, array: Array) -> dict[str, Array]:
    """The arrays to store for the array called `name`."""
    if name.endswith(".weights") and array.shape[-1] >= MIN_DIM:
        scales = np.maximum(np.abs(array).max(axis=1, keepdims=True), 1e-30).astype(np.float32)
        codes = np.rint(np.sign(array) * np.sqrt(np.abs(array) / scales) * _STEPS).astype(np.int8)
        return {name: codes, name + _SCALES: scales}
    return {name: array.astype(np.float16) if name.endswith(".prototypes") else array}


def unpack(stored: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays that `pack` stored, weights and prototypes in float32."""
    arrays = {name: array for name, array in stored.items() if not name.endswith(_SCALES)}
    for name, array in arrays.items():
        if name + _SCALES in stored:
            roots = array.astype(np.float32) / _STEPS
            arrays[name] = np.sign(roots) * roots**2 * stored[name + _SCALES]
        elif array.dtype == np.float16:
            arrays[name] = array.astype(np.float32)
    return arrays
