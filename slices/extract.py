"""Carry out a plan: copy whole tensors inside the kernel, gather kept rows and columns in bounded chunks.

Decides nothing and imports no torch. Memory stays below a few chunks, whatever the tensor.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from slices.errors import BadCheckpoint
from slices.headers import ITEM_BYTES, Entry
from slices.plan import Plan, Step
from slices.writer import Slot, write, write_all

CHUNK = 32 * 2**20  # bytes
_NO_KERNEL_COPY = (18, 22, 38, 95)  # EXDEV, EINVAL, ENOSYS, EOPNOTSUPP
_ONE = {"BF16": 0x3F80, "F16": 0x3C00, "F32": 0x3F800000}
_EXPONENT = {"BF16": (np.uint16, 0x7F80), "F16": (np.uint16, 0x7C00), "F32": (np.uint32, 0x7F800000)}
Progress = Callable[[int], None]


def extract(plan: Plan, folder: Path, progress: Progress = lambda done: None) -> None:
    """Write the plan's weight files into `folder`; `progress` is told the bytes of each part written.

    Raises:
        BadCheckpoint: a source file ends early or changed while it was read, or a gathered tensor holds
            NaN or infinity.
    """
    steps = {step.slot.name: step for step in plan.steps}
    files = sorted({step.source.file for step in plan.steps if step.source is not None})
    before = {file: _identity(file) for file in files}
    with ExitStack() as stack:
        sources = {file: stack.enter_context(file.open("rb", buffering=0)) for file in files}

        def fill(slot: Slot, out: BinaryIO) -> None:
            step = steps[slot.name]
            if step.source is None:
                parts = _constant(step, out)
            else:
                parts = _write_step(step, step.source, sources[step.source.file].fileno(), out)
            for written in parts:
                progress(written)

        write(folder, plan.layout, fill)
    changed = next((file for file in files if _identity(file) != before[file]), None)
    if changed is not None:
        raise BadCheckpoint(f"{changed} changed while it was read")


def _write_step(step: Step, entry: Entry, source: int, out: BinaryIO) -> Iterator[int]:
    if step.rows is None and step.columns is None:
        yield from _copy(entry, source, out)
        return
    for chunk in _gather(step, entry, source):
        _check_finite(entry, chunk)
        yield write_all(out, chunk.tobytes())


def _constant(step: Step, out: BinaryIO) -> Iterator[int]:
    """A tensor that no parent has: zeros, or ones."""
    size = ITEM_BYTES[step.slot.dtype]
    one = (_ONE[step.slot.dtype] if step.ones else 0).to_bytes(size, "little")
    left = step.slot.nbytes
    while left:
        count = min(left, CHUNK)
        left -= write_all(out, one * (count // size))
        yield count


def _copy(entry: Entry, source: int, out: BinaryIO) -> Iterator[int]:
    """Copy a tensor's bytes without bringing them into this process, where the file system lets us."""
    done = 0
    in_kernel = hasattr(os, "copy_file_range")
    while done < entry.nbytes:
        want = min(CHUNK, entry.nbytes - done)
        if in_kernel:
            try:
                count = os.copy_file_range(source, out.fileno(), want, entry.start + done)
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
                in_kernel = False
                continue
        else:
            count = write_all(out, _read(entry, source, entry.start + done, want))
        if count == 0:
            raise _short(entry)
        done += count
        yield count


def _gather(step: Step, entry: Entry, source: int) -> Iterator[NDArray[np.generic]]:
    """The kept rows and columns of a matrix, a chunk of rows at a time. Raw numbers, not converted."""
    width = entry.shape[1]
    kind = np.dtype(f"u{ITEM_BYTES[entry.dtype]}")
    rows = np.arange(entry.shape[0]) if step.rows is None else step.rows
    for run in _runs(rows, max(1, CHUNK // (width * kind.itemsize))):
        if run[0] < 0:
            yield np.zeros((len(run), step.slot.shape[1]), dtype=kind)
            continue
        first, last = int(run[0]), int(run[-1])
        row_bytes = width * kind.itemsize
        raw = _read(entry, source, entry.start + first * row_bytes, (last - first + 1) * row_bytes)
        block = np.frombuffer(raw, dtype=kind).reshape(-1, width)
        picked = block if last - first + 1 == len(run) else block[run - first]
        yield picked if step.columns is None else _pick_columns(picked, step.columns)


def _pick_columns(block: NDArray[Any], columns: NDArray[np.int64]) -> NDArray[Any]:
    picked = block[:, columns]
    picked[:, columns < 0] = 0
    return picked


def _runs(rows: NDArray[np.int64], span: int) -> Iterator[NDArray[np.int64]]:
    """Split `rows`, ascending but for -1s, around the -1s and where one read would span more than `span`."""
    for part in np.split(rows, np.flatnonzero(np.diff(rows < 0)) + 1):
        start = 0
        while start < len(part):
            end = start + span if part[0] < 0 else int(np.searchsorted(part, part[start] + span))
            yield part[start:end]
            start = end


def _read(entry: Entry, source: int, offset: int, count: int) -> bytes:
    parts = []
    while count:
        part = os.pread(source, count, offset)
        if not part:
            raise _short(entry)
        parts.append(part)
        offset += len(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _short(entry: Entry) -> BadCheckpoint:
    return BadCheckpoint(
        f"{entry.file}: ended inside tensor {entry.name!r}: it was cut short while it was read"
    )


def _check_finite(entry: Entry, chunk: NDArray[np.generic]) -> None:
    if entry.dtype not in _EXPONENT:
        return
    kind, mask = _EXPONENT[entry.dtype]
    if bool(np.any((chunk.view(kind) & mask) == mask)):
        raise BadCheckpoint(f"{entry.file}: tensor {entry.name!r} holds NaN or infinity")


def _identity(file: Path) -> tuple[int, int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
