"""Simulated quantization of rows that llama.cpp gives another type: filled up with zeros to blocks of 256.

Gemma 3 270M has rows of 640 and SmolLM2 of 576, so that a "Q2_K" of either holds few matrices below 4 bits.
Here every matrix goes through ggml's own quantizer as if its rows were longer, and what comes back is written
as bf16: the error is that of the type, the size is computed. No file is made that one could ship.
"""

import ctypes
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.demo_model import to_bf16
from slices.gguf.header import GGUFTensor, read_gguf_header
from slices.gguf.tensor_types import EMBEDDING_TENSORS

_BLOCK = 256
_ROWS = 8192  # at once


@dataclass(frozen=True)
class Simulated:
    """What a file with such rows would weigh."""

    bytes: int
    bits_per_weight: float


def padded_copy(
    source: Path, out: Path, kind: str, part: str, weights: Mapping[str, NDArray[np.float32]]
) -> Simulated:
    """Copy a bf16 GGUF with the matrices of `part` ("blocks" or "tables") as `kind` leaves them.

    Args:
        weights: importance of each column by tensor; a tensor that is not there is quantized without.
    """
    header = read_gguf_header(source)
    shutil.copyfile(source, out)
    saved = 0
    for tensor in header.tensors:
        if concerned(tensor, part):
            saved += 2 * tensor.weights - _rewrite(out, tensor, kind, weights.get(tensor.name))
    data = sum((2 if len(t.shape) > 1 else 4) * t.weights for t in header.tensors) - saved
    total = sum(tensor.weights for tensor in header.tensors)
    return Simulated(source.stat().st_size - saved, 8 * data / total)


def concerned(tensor: GGUFTensor, part: str) -> bool:
    """Whether a tensor is a matrix of that part; Gemma 4's small sensitive matrices are left out."""
    if part == "tables":
        return tensor.name in EMBEDDING_TENSORS
    sensitive = ".inp_gate." in tensor.name or ".proj." in tensor.name
    return tensor.name.startswith("blk.") and len(tensor.shape) == 2 and not sensitive


def _rewrite(file: Path, tensor: GGUFTensor, kind: str, weights: NDArray[np.float32] | None) -> int:
    """Put a tensor's values through `kind`, some rows at a time; the bytes that it would take."""
    columns, rows = tensor.shape
    stored = np.memmap(file, np.uint16, "r+", tensor.start, (rows, columns))
    nbytes = 0
    for start in range(0, rows, _ROWS):
        part = stored[start : start + _ROWS]
        values, taken = through(kind, (part.astype(np.uint32) << 16).view(np.float32), weights)
        part[:] = to_bf16(values)
        nbytes += taken
    stored.flush()
    return nbytes


def through(
    kind: str, values: NDArray[np.float32], weights: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.float32], int]:
    """`values` (rows, columns) after ggml's quantizer and back, and the bytes in between."""
    import gguf

    rows, columns = values.shape
    wide = _filled(values, 0.0)
    number = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[number]
    packed = np.empty((rows, wide.shape[1] // block * size), np.uint8)
    importance = None if weights is None else _filled(weights[None], float(weights.mean()))
    pointer = None if importance is None else importance.ctypes.data
    written = _quantizer()(int(number), wide.ctypes.data, packed.ctypes.data, 0, rows, wide.shape[1], pointer)
    if written != packed.size:
        raise AssertionError(f"ggml wrote {written} bytes of {kind}, expected {packed.size}")
    return np.ascontiguousarray(gguf.quants.dequantize(packed, number)[:, :columns]), packed.size


def _filled(values: NDArray[np.float32], value: float) -> NDArray[np.float32]:
    """Rows filled up to a multiple of the block."""
    missing = -values.shape[1] % _BLOCK
    return np.pad(values, ((0, 0), (0, missing)), constant_values=value).astype(np.float32)


def _quantizer() -> Any:
    from llama_cpp._ggml import libggml

    chunk = libggml.ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    return chunk
