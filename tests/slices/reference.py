"""What a plan's weight files must hold, by numpy alone: the other way to compute what `extract` writes."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slices.cut.plan import Plan, TensorPlan
from slices.files.safetensors_header import ITEM_BYTES, read_header

ONES = {"BF16": 0x3F80, "F16": 0x3C00, "F32": 0x3F800000}


def expected(tensor: TensorPlan) -> bytes:
    """The bytes of one tensor of the slice."""
    kind = np.dtype(f"<u{ITEM_BYTES[tensor.slot.dtype]}")
    if tensor.source is None:
        return np.full(tensor.slot.shape, ONES[tensor.slot.dtype] if tensor.ones else 0, kind).tobytes()
    raw = tensor.source.file.read_bytes()[tensor.source.start : tensor.source.start + tensor.source.nbytes]
    whole = np.frombuffer(raw, kind).reshape(tensor.source.shape)
    whole = _along(whole, tensor.rows, 0) if tensor.rows is not None else whole
    return (_along(whole, tensor.columns, 1) if tensor.columns is not None else whole).tobytes()


def _along(array: NDArray[np.generic], kept: NDArray[np.int64], axis: int) -> NDArray[np.generic]:
    zeros = np.zeros_like(np.take(array, [0], axis))
    return np.take(np.concatenate([array, zeros], axis), kept, axis)  # -1 is the last: zeros


def assert_right(plan: Plan, folder: Path) -> None:
    """Every tensor byte for byte, no other, and the size that was planned."""
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    weights = [*files, index] if index.exists() else files
    assert sum(file.stat().st_size for file in weights) == plan.nbytes
    found = {entry.name: entry for file in files for entry in read_header(file)[0]}
    assert found.keys() == {tensor.slot.name for tensor in plan.tensors}
    if index.exists():
        where = json.loads(index.read_text())["weight_map"]
        assert where == {name: entry.file.name for name, entry in found.items()}
    for tensor in plan.tensors:
        entry = found[tensor.slot.name]
        assert (entry.dtype, entry.shape) == (tensor.slot.dtype, tensor.slot.shape)
        data = entry.file.read_bytes()[entry.start : entry.start + entry.nbytes]
        assert data == expected(tensor), tensor.slot.name
