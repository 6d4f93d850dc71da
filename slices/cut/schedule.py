"""The copies, gathers and fills that make up a shard of the slice, in the order of its bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from slices.cut.gather import MatrixGather, blocks
from slices.cut.plan import TensorPlan
from slices.files.safetensors_header import ITEM_BYTES, Entry
from slices.files.safetensors_writer import Shard

CHUNK = 8 * 2**20  # bytes of one copy inside the kernel; as much as it reads ahead when asked
_ONE_BITS = {"BF16": 0x3F80, "F16": 0x3C00, "F32": 0x3F800000}


@dataclass(frozen=True)
class CopyRange:
    """Bytes copied unchanged: from offset `start` of the source file to `target` of the shard file."""

    entry: Entry  # the first tensor in it
    start: int
    target: int
    nbytes: int


@dataclass(frozen=True)
class FillRange:
    """Bytes that no parent has: `pattern` repeated."""

    pattern: bytes
    target: int
    nbytes: int


@dataclass(frozen=True)
class GatherRows:
    """Rows `first` to `last` (positions among the kept rows) of a matrix, to `target` of the shard file."""

    matrix: MatrixGather
    first: int
    last: int
    target: int


Operation = CopyRange | GatherRows | FillRange


def schedule(shard: Shard, tensors: Sequence[TensorPlan]) -> Iterator[Operation]:
    """The operations that fill a shard, in order; adjacent tensors that stay adjacent become one copy.

    Args:
        tensors: those of the shard, in its order.
    """
    pending: CopyRange | None = None
    target = len(shard.header)
    for tensor in tensors:
        copy = _copy_range(tensor, target)
        if (
            pending
            and copy
            and (pending.entry.file, pending.start + pending.nbytes) == (copy.entry.file, copy.start)
        ):
            pending = replace(pending, nbytes=pending.nbytes + copy.nbytes)
        else:
            if pending:
                yield pending
            pending = copy
        if copy is None:
            yield from _gathers_or_fill(tensor, target)
        target += tensor.slot.nbytes
    if pending:
        yield pending


def chunks(operations: Iterator[Operation]) -> Iterator[Operation]:
    """The same in pieces small enough to share between threads and to stop between."""
    for operation in operations:
        if isinstance(operation, GatherRows):
            yield operation
            continue
        for offset in range(0, operation.nbytes, CHUNK):
            count = min(CHUNK, operation.nbytes - offset)
            if isinstance(operation, CopyRange):
                yield CopyRange(
                    entry=operation.entry,
                    start=operation.start + offset,
                    target=operation.target + offset,
                    nbytes=count,
                )
            else:
                yield FillRange(operation.pattern, operation.target + offset, count)


def _copy_range(tensor: TensorPlan, target: int) -> CopyRange | None:
    """A tensor that is kept whole, as a copy; None for any other."""
    if tensor.source is None or tensor.rows is not None or tensor.columns is not None:
        return None
    return CopyRange(
        entry=tensor.source, start=tensor.source.start, target=target, nbytes=tensor.source.nbytes
    )


def _gathers_or_fill(tensor: TensorPlan, target: int) -> Iterator[GatherRows | FillRange]:
    if tensor.source is None:
        one = _ONE_BITS[tensor.slot.dtype] if tensor.ones else 0
        yield FillRange(one.to_bytes(ITEM_BYTES[tensor.slot.dtype], "little"), target, tensor.slot.nbytes)
        return
    matrix = MatrixGather(tensor.source, tensor.rows, tensor.columns)
    row_bytes = matrix.kept_width * matrix.dtype.itemsize
    for first, last in blocks(matrix):
        yield GatherRows(matrix=matrix, first=first, last=last, target=target + first * row_bytes)
