"""Rows of a matrix quantized by ggml and dequantized again: the values that a quantized model computes with.

ggml quantizes each row by itself, so a row comes out as it does in the quantized file. ggml ends the process
on arguments that it does not expect: callers run this in a child process (`slices.quant.requantize_child`).
"""

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.errors import MissingExtra
from slices.gguf.tensor_types import row_bytes, type_number

Floats = NDArray[np.float32]


def requantize(rows: Floats, type: str, importance: Floats | None = None) -> Floats:
    """`rows` (rows, columns), float32, rounded to what ggml's tensor type `type` can represent.

    Args:
        importance: weights of the columns' squared rounding errors, float32 (columns,); None for none.
    """
    import gguf

    rows = np.ascontiguousarray(rows, np.float32)
    count, columns = rows.shape
    blocks = np.zeros((count, row_bytes(type, columns)), np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    _quantize_chunk()(
        type_number(type),
        rows.ctypes.data,
        blocks.ctypes.data,
        0,
        count,
        columns,
        None if weights is None else weights.ctypes.data,
    )
    values = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[type])
    return np.asarray(values, np.float32).reshape(rows.shape)


@cache
def _quantize_chunk() -> Any:
    """`ggml_quantize_chunk(type, source, target, start, rows, columns, importance)`."""
    try:
        from llama_cpp._ggml import libggml
    except ImportError:
        raise MissingExtra("llama-cpp-python", "quantize") from None
    function = libggml.ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64,
        ctypes.c_void_p,
    ]  # fmt: skip
    return function
