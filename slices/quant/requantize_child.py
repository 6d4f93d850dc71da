"""The child process that requantizes rows before and after healing, since ggml may abort.

    python -m slices.quant.requantize_child JOB.json [IMPORTANCE.safetensors]

JOB.json is a list of `slices.measure.healing_kept.MatrixJob`. Prints a JSON object for each matrix:
`{"name", "kept": [...], "changed": [...], "grid"}`, with a number a sampled row.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from slices.errors import RunFailed
from slices.files.child_process import work_as_child
from slices.gguf.pad_rows import pad_importance
from slices.quant.quantization_grid import find_grid
from slices.quant.requantize import Floats, requantize

ROWS = 16  # sampled a matrix
_DTYPES = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}


def sample_rows(count: int) -> NDArray[np.int64]:
    """The rows of a matrix of `count` rows that are read: the same ones always, ascending, (<= ROWS,)."""
    if count <= ROWS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, ROWS, replace=False))


def compare_matrix(job: Mapping[str, Any], importance: Floats | None) -> dict[str, Any]:
    """The change of the sampled rows, squared, and its product with the change after quantization."""
    before, after = _read_rows(job["before"]), _read_rows(job["after"])
    change = after - before
    changed = np.einsum("rc,rc->r", change, change, dtype=np.float64)
    kept = np.zeros_like(changed)
    if changed.any():
        quantized = _requantized(after, job, importance) - _requantized(before, job, importance)
        kept = np.einsum("rc,rc->r", quantized, change, dtype=np.float64)
    scale = job["after"]["shape"][0] / len(change)  # a sampled row stands for as many rows
    return {
        "name": job["name"],
        "kept": (kept * scale).tolist(),
        "changed": (changed * scale).tolist(),
        "grid": find_grid(before),
    }


def _requantized(rows: Floats, job: Mapping[str, Any], importance: Floats | None) -> Floats:
    """The rows as the GGUF has them, whose rows may be padded."""
    own, wide = rows.shape[1], job["columns"] or rows.shape[1]
    if importance is not None:
        importance = pad_importance(importance, wide)
    return requantize(np.pad(rows, [(0, 0), (0, wide - own)]), job["type"], importance)[:, :own]


def _read_rows(entry: Mapping[str, Any]) -> Floats:
    """Sampled rows of a matrix as a bf16 GGUF has them, float32 (rows, columns)."""
    shape = tuple(entry["shape"])
    stored = np.memmap(entry["file"], _DTYPES[entry["dtype"]], "r", entry["start"], shape)
    rows = stored[sample_rows(shape[0])]
    if entry["dtype"] == "BF16":
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return _round_to_bf16(rows.astype(np.float32))


def _round_to_bf16(rows: Floats) -> Floats:
    import gguf

    kind = gguf.GGMLQuantizationType.BF16
    return np.asarray(gguf.quants.dequantize(gguf.quants.quantize(rows, kind), kind), np.float32)


def main(arguments: list[str]) -> None:
    """Compare every matrix of the job."""
    if len(arguments) not in (1, 2):
        raise RunFailed(f"expected JOB.json [IMPORTANCE.safetensors], found {arguments}")
    importance = load_file(arguments[1]) if len(arguments) == 2 else {}
    for job in json.loads(Path(arguments[0]).read_text(encoding="utf-8")):
        print(json.dumps(compare_matrix(job, importance.get(job["name"]))), flush=True)


if __name__ == "__main__":
    work_as_child(main)
