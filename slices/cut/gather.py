"""Gather the kept rows and columns of a stored matrix, a bounded block at a time.

Values are copied, never converted: a block is an array of unsigned integers of the stored width. The plan
chooses the rows and columns; `slices.cut.extract` writes the blocks.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from slices.errors import BadCheckpoint
from slices.files.safetensors_header import ITEM_BYTES, Entry

BLOCK = 2 * 2**20  # bytes, of what is read and of what is kept: what stays in the processor's cache
_GAP = 64 * 2**10  # bytes between kept rows that are cheaper to read than to skip
_MANY_RUNS = 512  # of columns: from here on, one indexed take beats a copy for each run
_NOT_FINITE = {
    "F8_E5M2": 0x7C, "F8_E4M3": 0x7F, "F16": 0x7C00, "BF16": 0x7F80,
    "F32": 0x7F800000, "F64": 0x7FF0000000000000,
}  # fmt: skip
"""The smallest bit pattern, sign aside, that is infinity or NaN."""

Array = NDArray[np.generic]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class MatrixGather:
    """A gather from a stored tensor, viewed as a matrix: its first axis against all others.

    Kept rows and columns are ascending, None for all; -1 stands for one of zeros.
    """

    entry: Entry
    kept_rows: NDArray[np.int64] | None
    columns: NDArray[np.int64] | None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Unsigned integers as wide as the stored values."""
        return np.dtype(f"u{ITEM_BYTES[self.entry.dtype]}")

    @cached_property
    def width(self) -> int:
        """Numbers in a stored row."""
        return math.prod(self.entry.shape[1:])

    @property
    def row_bytes(self) -> int:
        """Bytes of a stored row, at least 1."""
        return max(1, self.width * self.dtype.itemsize)

    @property
    def kept_width(self) -> int:
        """Numbers in a kept row."""
        return self.width if self.columns is None else len(self.columns)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The kept rows, shape (kept,)."""
        return np.arange(self.entry.shape[0]) if self.kept_rows is None else self.kept_rows

    @cached_property
    def runs(self) -> tuple[tuple[int, int, int], ...]:
        """Kept columns as runs: first of the source (-1: zeros), first of the target, how many."""
        columns = self.columns
        if columns is None:
            return ((0, 0, self.width),)
        zeros = columns < 0
        step = np.where(zeros[1:] & zeros[:-1], 1, np.diff(columns))
        starts = [0, *(np.flatnonzero((step != 1) | (zeros[1:] != zeros[:-1])) + 1).tolist()]
        ends = [*starts[1:], len(columns)]
        return tuple((int(columns[a]), a, b - a) for a, b in zip(starts, ends, strict=True) if b > a)


class Buffers:
    """Two reusable arrays of one thread: the bytes read, the values kept."""

    def __init__(self) -> None:
        self._read = np.empty(BLOCK, np.uint8)
        self._kept = np.empty(BLOCK, np.uint8)

    def read(self, nbytes: int) -> Bytes:
        """The read buffer, of `nbytes`."""
        if nbytes > self._read.size:
            self._read = np.empty(nbytes, np.uint8)
        return self._read[:nbytes]

    def kept(self, nbytes: int) -> Bytes:
        """The buffer of kept values, of `nbytes`."""
        if nbytes > self._kept.size:
            self._kept = np.empty(nbytes, np.uint8)
        return self._kept[:nbytes]


def blocks(matrix: MatrixGather) -> Iterator[tuple[int, int]]:
    """Ranges of positions in `matrix.rows`, each a block of at end_row BLOCK bytes (or one row)."""
    span = max(1, BLOCK // matrix.row_bytes)
    for first in range(0, len(matrix.rows), span):
        yield first, min(first + span, len(matrix.rows))


def byte_range(matrix: MatrixGather, first: int, last: int) -> tuple[int, int]:
    """The byte range in the file that spans rows `matrix.rows[first:last]`: first byte and count."""
    rows = matrix.rows[first:last]
    low, high = max(0, int(rows.min())), int(rows.max()) + 1
    return matrix.entry.start + low * matrix.row_bytes, (high - low) * matrix.row_bytes


def gather(matrix: MatrixGather, first: int, last: int, source: int, buffers: Buffers) -> Array:
    """The kept columns of rows `matrix.rows[first:last]`, shape (last - first, kept_width), in a buffer.

    Raises:
        BadCheckpoint: the file `source` ends early, or a kept number is NaN or infinite.
    """
    rows = matrix.rows[first:last]
    shape = (len(rows), matrix.kept_width)
    kept = buffers.kept(math.prod(shape) * matrix.dtype.itemsize).view(matrix.dtype).reshape(shape)
    done = 0
    for piece in _pieces(rows, matrix.row_bytes):
        part = kept[done : done + len(piece)]
        if piece[0] < 0:
            part[:] = 0
        else:
            _take(matrix, piece, source, buffers, part)
        done += len(piece)
    check_finite(matrix.entry, kept)
    return kept


def _pieces(rows: NDArray[np.int64], row_bytes: int) -> Iterator[NDArray[np.int64]]:
    """Split around zeros, where a gap is too wide to read through, and where one read would pass BLOCK."""
    far = (np.diff(rows) > _GAP // row_bytes + 1) | np.diff(rows < 0)
    for near in np.split(rows, np.flatnonzero(far) + 1):
        start = 0
        while start < len(near):
            end_row = int(near[start]) + max(1, BLOCK // row_bytes)
            end = len(near) if near[0] < 0 else int(np.searchsorted(near, end_row))
            yield near[start:end]
            start = end


def _take(matrix: MatrixGather, rows: NDArray[np.int64], source: int, buffers: Buffers, kept: Array) -> None:
    """Read the span of `rows` at once and copy what is kept of it into `kept`."""
    span = int(rows[-1] - rows[0]) + 1
    offset = matrix.entry.start + int(rows[0]) * matrix.row_bytes
    dense = span == len(rows)
    if dense and matrix.columns is None:
        read_exactly(matrix.entry, source, offset, kept.reshape(-1).view(np.uint8))
        return
    raw = buffers.read(span * matrix.width * matrix.dtype.itemsize)
    read_exactly(matrix.entry, source, offset, raw)
    block = raw.view(matrix.dtype).reshape(span, matrix.width)
    _take_columns(matrix, block if dense else block[rows - rows[0]], kept)


def _take_columns(matrix: MatrixGather, block: Array, kept: Array) -> None:
    if matrix.columns is not None and len(matrix.runs) >= _MANY_RUNS:
        np.take(block, matrix.columns, axis=1, out=kept, mode="clip")
        kept[:, matrix.columns < 0] = 0
        return
    for begin, at, count in matrix.runs:
        kept[:, at : at + count] = 0 if begin < 0 else block[:, begin : begin + count]


def read_exactly(entry: Entry, source: int, offset: int, into: Bytes) -> None:
    """Fill `into` from `offset` of the file descriptor `source`.

    Raises:
        BadCheckpoint: the file ends before.
    """
    rest = into.data
    while rest:
        count = os.preadv(source, [rest], offset)
        if count == 0:
            raise truncated_error(entry)
        offset += count
        rest = rest[count:]


def truncated_error(entry: Entry) -> BadCheckpoint:
    """The error for a file that was truncated after its header was read."""
    return BadCheckpoint(
        f"{entry.file}: ended inside tensor {entry.name!r}: it was cut short while it was read"
    )


def check_finite(entry: Entry, block: Array) -> None:
    """Refuse NaN and infinity in a block of raw values, by their bit patterns.

    Raises:
        BadCheckpoint: there is one; the tensor is named.
    """
    lowest = _NOT_FINITE.get(entry.dtype)
    if lowest is None or block.size == 0:
        return
    size = block.dtype.itemsize
    # A negative number's pattern, read as unsigned, is the largest; a positive one's, read as signed.
    positive, negative = int(block.view(f"i{size}").max()), int(block.view(f"u{size}").max())
    if positive >= lowest or negative >= lowest + 2 ** (8 * size - 1):
        raise BadCheckpoint(f"{entry.file}: tensor {entry.name!r} holds NaN or infinity")
