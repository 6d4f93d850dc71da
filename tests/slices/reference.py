"""What a plan's weight files must hold, by numpy alone: the other way to compute what `extract` writes."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slices.cut.plan import Plan, Step
from slices.files.safetensors_header import ITEM_BYTES, read_header

ONES = {"BF16": 0x3F80, "F16": 0x3C00, "F32": 0x3F800000}


def expected(step: Step) -> bytes:
    """The bytes of one tensor of the slice."""
    kind = np.dtype(f"<u{ITEM_BYTES[step.slot.dtype]}")
    if step.source is None:
        return np.full(step.slot.shape, ONES[step.slot.dtype] if step.ones else 0, kind).tobytes()
    raw = step.source.file.read_bytes()[step.source.start : step.source.start + step.source.nbytes]
    whole = np.frombuffer(raw, kind).reshape(step.source.shape)
    whole = _along(whole, step.rows, 0) if step.rows is not None else whole
    return (_along(whole, step.columns, 1) if step.columns is not None else whole).tobytes()


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
    assert found.keys() == {step.slot.name for step in plan.steps}
    if index.exists():
        where = json.loads(index.read_text())["weight_map"]
        assert where == {name: entry.file.name for name, entry in found.items()}
    for step in plan.steps:
        entry = found[step.slot.name]
        assert (entry.dtype, entry.shape) == (step.slot.dtype, step.slot.shape)
        data = entry.file.read_bytes()[entry.start : entry.start + entry.nbytes]
        assert data == expected(step), step.slot.name
