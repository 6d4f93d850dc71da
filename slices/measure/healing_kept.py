"""Healing kept: the share of a healing's change of the weights that a quantization type keeps.

For matrices W0 before and W1 after healing and Q, quantization and dequantization by the type that each
tensor gets, the share is <Q(W1) - Q(W0), W1 - W0> / |W1 - W0|², summed over all quantized matrices. It is 1
where quantization errors do not depend on the change, and 0 where W1 is rounded back to Q(W0): so it goes
with small changes of a parent whose weights lie on a quantization grid (`slices.quant.quantization_grid`).
A fixed sample of rows is read. Matrices of experts (three axes) are left out.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slices import manifest
from slices.architecture.anatomy import match_tensors, read_anatomy
from slices.checkpoint import open_checkpoint
from slices.errors import SliceError
from slices.estimate import Estimate, ratio
from slices.export import DIALECTS, gguf_names
from slices.files.child_process import run_child
from slices.files.safetensors_header import Entry
from slices.gguf.pad_rows import padded_size
from slices.measure.unhealed import unhealed_weights
from slices.progress import Progress, no_progress
from slices.quant.fit import save_values
from slices.quant.imatrix_file import Imatrix

WARN_BELOW = 0.5  # of the change
_CHILD = "slices.quant.requantize_child"
_FLOATS = ("BF16", "F16", "F32")


@dataclass(frozen=True)
class HealingKept:
    """The share of a healing's change that a quantized file keeps.

    Attributes:
        type: the file's type.
        share: of all quantized matrices together; None where it is not known, and `reason` says why. Its
            standard error is over the sampled rows.
        by_kind: the same by kind of matrix, such as `attn_q`.
        parent_grid: matrices before healing that lie on a quantization grid, counted by its type.
        matrices, rows: how many were compared, of those that healing changed.
        source: where the weights before healing were read: "slice" that was healed, or "parent".
    """

    type: str
    share: Estimate | None
    by_kind: Mapping[str, Estimate]
    parent_grid: Mapping[str, int]
    matrices: int
    rows: int
    source: str | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON, with the warning where there is one."""
        return {**asdict(self), "warning": self.warning}

    @property
    def warning(self) -> str | None:
        """A sentence where less than half of the change is kept, with the reason where there is one known."""
        if self.share is None or self.share.value >= WARN_BELOW:
            return None
        warning = (
            f"{self.type} keeps {self.share.value:.1%} ± {self.share.stderr:.1%} of what healing changed in "
            "the weights"
        )
        if self.parent_grid:
            grids = ", ".join(f"{type} ({count})" for type, count in self.parent_grid.items())
            warning += (
                f": {sum(self.parent_grid.values())} of {self.matrices} matrices of the unhealed slice lie "
                f"on a quantization grid, {grids}, and small changes are rounded back to it"
            )
        return f"{warning}. A type of more bits or a larger change (--lr, --steps of mom heal) keeps more"


@dataclass(frozen=True)
class MatrixJob:
    """A matrix to compare, as JSON for the child: its name in the GGUF, its type, and its two headers.

    `columns` of a row of the GGUF: more than the matrix has where rows are padded, None where as many.
    """

    name: str
    type: str
    columns: int | None
    before: Mapping[str, Any]
    after: Mapping[str, Any]


def measure_healing_kept(
    folder: Path,
    type: str,
    types: Mapping[str, str],
    imatrix: Imatrix | None = None,
    pad_rows: bool = False,
    progress: Progress = no_progress,
) -> HealingKept | None:
    """The share of a slice's healing that a quantization keeps; None for a slice that was not healed.

    Args:
        types: ggml's type of every tensor by its name in the GGUF (`SizePrediction.types`).
        imatrix: what the file is quantized with.
        pad_rows: whether its hidden states are padded.

    Raises:
        RunFailed: ggml failed.
    """
    if not (folder / manifest.FILE).is_file() or manifest.read(folder).healing is None:
        return None
    try:
        source, jobs = _jobs(folder, types, pad_rows)
    except SliceError as error:
        return _unknown(type, str(error))
    if not jobs:
        return _unknown(type, "no matrix is quantized whose weights before healing are known", source)
    return _summary(type, source, _run(jobs, imatrix, progress))


def record_healing_kept(folder: Path, file: str, found: HealingKept | None) -> None:
    """Record it in slice.json beside the GGUF `file`, where that is the slice's own."""
    if found is None:
        return
    slice_ = manifest.read(folder)
    entries = [
        each.model_copy(update={"healing_kept": found.to_json()}) if each.file == file else each
        for each in slice_.quantized
    ]
    if entries != slice_.quantized:
        manifest.write(folder, slice_.model_copy(update={"quantized": entries}))


def _jobs(folder: Path, types: Mapping[str, str], pad_rows: bool) -> tuple[str, list[MatrixJob]]:
    """Where the weights before healing are, and every quantized matrix that is known before and after."""
    checkpoint = open_checkpoint(folder)
    anatomy = read_anatomy(checkpoint.config)
    after, before = match_tensors(checkpoint, anatomy)[0], unhealed_weights(folder)
    names = gguf_names(anatomy)
    width = padded_size(anatomy, DIALECTS[anatomy.family.name]) if pad_rows else None
    jobs = [
        MatrixJob(
            name=names[name],
            type=types[names[name]],
            columns=width if anatomy.tensors[name].rule.axes[-1] == "hidden" else None,
            before=_header(before.entries[name]),
            after=_header(entry),
        )
        for name, entry in after.items()
        if len(entry.shape) == 2
        and name in before.entries
        and types.get(names.get(name, ""), "F32") not in _FLOATS
    ]
    return before.source, jobs


def _header(entry: Entry) -> dict[str, Any]:
    return {"file": str(entry.file), "dtype": entry.dtype, "start": entry.start, "shape": list(entry.shape)}


def _run(jobs: Sequence[MatrixJob], imatrix: Imatrix | None, progress: Progress) -> list[dict[str, Any]]:
    """Every matrix's sums, in a child process."""
    found: list[dict[str, Any]] = []

    def on_line(line: str) -> None:
        found.append(json.loads(line))
        progress("measure what of the healing is kept", len(found), len(jobs))

    with tempfile.TemporaryDirectory(prefix="mom-") as scratch:
        job, values = Path(scratch) / "job.json", Path(scratch) / "importance.safetensors"
        job.write_text(json.dumps([asdict(each) for each in jobs]), encoding="utf-8")
        if imatrix is not None:
            save_values(imatrix.values, values)
        run_child(_CHILD, [str(job), *([str(values)] if imatrix is not None else [])], on_line)
    return found


def _summary(type: str, source: str, found: Sequence[Mapping[str, Any]]) -> HealingKept:
    found = [each for each in found if any(each["changed"])]
    if not found:
        return _unknown(type, "healing changed no quantized matrix", source)
    shares = {kind: _share(kind, found) for kind in dict.fromkeys(_kind(each["name"]) for each in found)}
    grids = Counter(each["grid"] for each in found if each["grid"])
    return HealingKept(
        type=type,
        share=_share(None, found),
        by_kind=shares,
        parent_grid=dict(grids.most_common()),
        matrices=len(found),
        rows=sum(len(each["changed"]) for each in found),
        source=source,
    )


def _share(kind: str | None, found: Sequence[Mapping[str, Any]]) -> Estimate:
    """The share over the matrices of a kind (None: all)."""
    of_kind = [each for each in found if kind in (None, _kind(each["name"]))]
    kept = np.concatenate([each["kept"] for each in of_kind])
    changed = np.concatenate([each["changed"] for each in of_kind])
    return ratio(kept, changed)


def _kind(name: str) -> str:
    """`attn_q` of `blk.3.attn_q.weight`."""
    return name.removesuffix(".weight").split(".")[-1]


def _unknown(type: str, reason: str, source: str | None = None) -> HealingKept:
    return HealingKept(
        type=type, share=None, by_kind={}, parent_grid={}, matrices=0, rows=0, source=source, reason=reason
    )
