"""Matrices quantized by ggml and dequantized again: the values that a quantized model computes with.

ggml quantizes each row by itself, so a row comes out as it does in the quantized file, to the bit. ggml ends
the process on arguments that it does not expect; what is known of them is checked first.
"""

import ctypes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.errors import MissingExtra, RunFailed, Unsupported
from slices.gguf.tensor_types import row_bytes, type_number
from slices.quant.types import IMATRIX_TYPES

Floats = NDArray[np.float32]
_CHUNK = 2**16  # numbers that a thread quantizes at a time
_TO_FLOAT = {"F16": "ggml_fp16_to_fp32_row", "BF16": "ggml_bf16_to_fp32_row"}


def requantize(rows: Floats, type: str, importance: Floats | None = None, threads: int = 1) -> Floats:
    """A copy of `rows`, rounded to what ggml's tensor type `type` can represent; as `requantize_in_place`."""
    values = np.array(rows, np.float32, order="C")
    requantize_in_place(values, type, importance, threads)
    return values


def requantize_in_place(
    values: Floats, type: str, importance: Floats | None = None, threads: int = 1
) -> None:
    """Round `values` to what ggml's tensor type `type` can represent, as a GGUF of them dequantizes.

    A quantized GGUF is made of bf16 weights: round to bf16 first to get its values.

    Args:
        values: float32 (..., rows, columns), contiguous. Rows are quantized one by one.
        importance: weights of the columns' squared rounding errors, float32 (columns,), or one such vector
            for each matrix of the first axis, (matrices * columns,); None for none.
        threads: how many threads quantize.

    Raises:
        Unsupported: the type needs an importance matrix and gets none.
        RunFailed: a value is not finite.
        MissingExtra: llama-cpp-python is not installed.
    """
    if type == "F32":
        return
    if importance is None and type in IMATRIX_TYPES:
        raise Unsupported(f"{type} needs an importance matrix")
    if not (np.isfinite(values).all() and (importance is None or np.isfinite(importance).all())):
        raise RunFailed(f"weights that are not finite cannot be quantized to {type}")
    functions = _quantize_chunk(), _to_float(type)
    with ThreadPoolExecutor(threads) as pool:
        parts = _parts(values, importance)
        for _ in pool.map(lambda part: _round(part[0], type, part[1], *functions), parts):
            pass


def _parts(values: Floats, importance: Floats | None) -> Iterator[tuple[Floats, Floats | None]]:
    """Views of some rows of `values`, (rows, columns), with the weights of their columns."""
    columns = values.shape[-1]
    matrices = 1 if importance is None else importance.size // columns
    step = max(1, _CHUNK // columns)
    for index, matrix in enumerate(values.reshape(matrices, -1, columns)):
        weights = None
        if importance is not None:
            weights = np.ascontiguousarray(importance.reshape(matrices, columns)[index], np.float32)
        for start in range(0, len(matrix), step):
            yield matrix[start : start + step], weights


def _round(rows: Floats, type: str, weights: Floats | None, quantize: Any, to_float: Any) -> None:
    count, columns = rows.shape
    blocks = np.empty((count, row_bytes(type, columns)), np.uint8)
    pointer = None if weights is None else weights.ctypes.data
    quantize(type_number(type), rows.ctypes.data, blocks.ctypes.data, 0, count, columns, pointer)
    to_float(blocks.ctypes.data, rows.ctypes.data, rows.size)


@cache
def _quantize_chunk() -> Any:
    """`ggml_quantize_chunk(type, source, target, start, rows, columns, importance)`."""
    function = _library().ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64,
        ctypes.c_void_p,
    ]  # fmt: skip
    return function


@cache
def _to_float(type: str) -> Any:
    """ggml's dequantization of a type, `(source, target, count)`."""
    name = _TO_FLOAT.get(type, f"dequantize_row_{type.lower().replace('_k', '_K')}")
    function = getattr(_library(), name)
    function.restype = None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    return function


def _library() -> Any:
    try:
        from llama_cpp._ggml import libggml
    except ImportError:
        raise MissingExtra("llama-cpp-python", "quantize") from None
    return libggml
