"""Carry out a plan: copy whole tensors inside the kernel, gather kept rows and columns in bounded blocks.

Decides nothing and imports no torch. Every byte's place is known beforehand, so a few threads read,
pick and write at once; memory stays below a few blocks, whatever the tensor.
"""

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from slices.cut.gather import Buffers, Matrix, blocks, gather, read_into, short, span_of
from slices.cut.plan import Plan, Step
from slices.errors import BadCheckpoint
from slices.files.safetensors_header import ITEM_BYTES, Entry, read_header
from slices.files.safetensors_writer import Shard, write_at, write_index

CHUNK = 8 * 2**20  # bytes of one copy inside the kernel; as much as it reads ahead when asked
_BEHIND = 64 * 2**20  # bytes written between two looks at what has reached the disk
_THREADS = 2  # one reads while the other writes
_NO_KERNEL_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
_ONE = {"BF16": 0x3F80, "F16": 0x3C00, "F32": 0x3F800000}
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Span:
    """Bytes that go over as they are: from `start` of the source's file to `target` of the shard's."""

    entry: Entry  # the first tensor in it
    start: int
    target: int
    nbytes: int


@dataclass(frozen=True)
class Fill:
    """Bytes that no parent has: `pattern` again and again."""

    pattern: bytes
    target: int
    nbytes: int


@dataclass(frozen=True)
class Pick:
    """The kept part of rows `first` to `last` (positions among the kept), to `target` of the shard's file."""

    matrix: Matrix
    first: int
    last: int
    target: int


class _Lane:
    """What one thread needs: its own open files, so that the kernel reads ahead for each, and buffers."""

    def __init__(self, files: Iterable[Path], stack: ExitStack) -> None:
        self.sources = {file: stack.enter_context(file.open("rb", buffering=0)).fileno() for file in files}
        self.buffers = Buffers()
        self.step = 0


def extract(plan: Plan, folder: Path, progress: Progress = lambda done: None) -> None:
    """Write the plan's weight files into `folder`; `progress` is told the bytes of each part written.

    Raises:
        BadCheckpoint: a source file is not what was planned on, ends early or changed while it was read,
            or a gathered tensor holds NaN or infinity.
        OSError: the disk is full.
    """
    files = sorted({step.source.file for step in plan.steps if step.source is not None})
    before = {file: _identity(file) for file in files}
    _check_unchanged(plan.steps, files)
    _write(plan, folder, files, progress)
    changed = next((file for file in files if _identity(file) != before[file]), None)
    if changed is not None:
        raise BadCheckpoint(f"{changed} changed while it was read")


def schedule(shard: Shard, steps: Sequence[Step]) -> Iterator[Span | Pick | Fill]:
    """How a shard is filled, in order: neighbours of the source that stay neighbours become one span.

    Args:
        steps: of the shard's tensors, in its order.
    """
    span: Span | None = None
    target = len(shard.header)
    for step in steps:
        whole = _whole(step, target)
        if span and whole and (span.entry.file, span.start + span.nbytes) == (whole.entry.file, whole.start):
            span = replace(span, nbytes=span.nbytes + whole.nbytes)
        else:
            if span:
                yield span
            span = whole
        if whole is None:
            yield from _partial(step, target)
        target += step.slot.nbytes
    if span:
        yield span


def _whole(step: Step, target: int) -> Span | None:
    if step.source is None or step.rows is not None or step.columns is not None:
        return None
    return Span(step.source, step.source.start, target, step.source.nbytes)


def _partial(step: Step, target: int) -> Iterator[Pick | Fill]:
    if step.source is None:
        one = _ONE[step.slot.dtype] if step.ones else 0
        yield Fill(one.to_bytes(ITEM_BYTES[step.slot.dtype], "little"), target, step.slot.nbytes)
        return
    matrix = Matrix(step.source, step.rows, step.columns)
    row_bytes = matrix.kept_width * matrix.kind.itemsize
    for first, last in blocks(matrix):
        yield Pick(matrix, first, last, target + first * row_bytes)


def _write(plan: Plan, folder: Path, files: Sequence[Path], progress: Progress) -> None:
    steps = {step.slot.name: step for step in plan.steps}
    big = plan.nbytes > _memory() / 4
    with ExitStack() as stack:
        lanes: SimpleQueue[_Lane] = SimpleQueue()
        for _ in range(_THREADS):
            lanes.put(_Lane(files, stack))
        pool = stack.enter_context(ThreadPoolExecutor(_THREADS))
        for shard in plan.layout.shards:
            with (folder / shard.file).open("xb", buffering=0) as file:
                out = file.fileno()
                progress(write_at(out, shard.header, 0))
                parts = _parts(shard, [steps[slot.name] for slot in shard.slots])
                _in_parallel(pool, (_job(part, lanes, out, big) for part in parts), progress)
                if os.fstat(out).st_size != shard.nbytes:
                    raise RuntimeError(f"{shard.file}: planned {shard.nbytes} bytes, wrote otherwise")
    progress(write_index(folder, plan.layout))


def _parts(shard: Shard, steps: Sequence[Step]) -> Iterator[Span | Pick | Fill]:
    """The schedule in pieces small enough to share between threads and to stop between."""
    for item in schedule(shard, steps):
        if isinstance(item, Pick):
            yield item
            continue
        for at in range(0, item.nbytes, CHUNK):
            count = min(CHUNK, item.nbytes - at)
            if isinstance(item, Span):
                yield Span(item.entry, item.start + at, item.target + at, count)
            else:
                yield Fill(item.pattern, item.target + at, count)


def _job(part: Span | Pick | Fill, lanes: "SimpleQueue[_Lane]", out: int, big: bool) -> Callable[[], int]:
    def run() -> int:
        lane = lanes.get()
        try:
            count = _do(part, lane, out)
            if big:
                _forget(part, lane, out)
            return count
        finally:
            lanes.put(lane)

    return run


def _forget(part: Span | Pick | Fill, lane: _Lane, out: int) -> None:
    """Let go of what was read and, once it is on disk, of what was written.

    A slice that fills the memory with cached pages makes the kernel search for free ones at every step.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    match part:
        case Span():
            _drop(lane.sources[part.entry.file], part.start, part.nbytes)
        case Pick():
            start, count = span_of(part.matrix, part.first, part.last)
            _drop(lane.sources[part.matrix.entry.file], start, count)
    step = part.target // _BEHIND
    if step != lane.step:
        lane.step = step
        _drop(out, max(0, part.target - 4 * _BEHIND), 4 * _BEHIND)


def _drop(descriptor: int, start: int, count: int) -> None:
    os.posix_fadvise(descriptor, start, count, os.POSIX_FADV_DONTNEED)


def _do(part: Span | Pick | Fill, lane: _Lane, out: int) -> int:
    match part:
        case Span():
            _read_ahead(lane.sources[part.entry.file], part.start, part.nbytes)
            return _copy(part, lane, out)
        case Fill():
            return write_at(out, part.pattern * (part.nbytes // len(part.pattern)), part.target)
        case Pick():
            source = lane.sources[part.matrix.entry.file]
            block = gather(part.matrix, part.first, part.last, source, lane.buffers)
            return write_at(out, block.reshape(-1).view(np.uint8).data, part.target)


def _in_parallel(pool: ThreadPoolExecutor, jobs: Iterator[Callable[[], int]], progress: Progress) -> None:
    """Run the jobs, few at a time; after the first that fails no other is begun."""
    pending: deque[Future[int]] = deque()
    try:
        for job in jobs:
            pending.append(pool.submit(job))
            if len(pending) > 2 * _THREADS:
                progress(pending.popleft().result())
        while pending:
            progress(pending.popleft().result())
    finally:
        for future in pending:
            future.cancel()


def _copy(span: Span, lane: _Lane, out: int) -> int:
    """Copy a span without bringing it into this process, where the file system lets us."""
    source, done = lane.sources[span.entry.file], 0
    while done < span.nbytes:
        try:
            count = os.copy_file_range(source, out, span.nbytes - done, span.start + done, span.target + done)
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
            return done + _copy_through(span, done, lane, out)
        except AttributeError:  # not Linux
            return _copy_through(span, done, lane, out)
        if count == 0:
            raise short(span.entry)
        done += count
    return done


def _copy_through(span: Span, done: int, lane: _Lane, out: int) -> int:
    block = lane.buffers.read(CHUNK)[: span.nbytes - done]
    read_into(span.entry, lane.sources[span.entry.file], span.start + done, block)
    return write_at(out, block.data, span.target + done)


def _memory() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read_ahead(source: int, start: int, count: int) -> None:
    """Let the disk read what the next copy needs while the last one is being written."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(source, start, count, os.POSIX_FADV_WILLNEED)


def _check_unchanged(steps: Sequence[Step], files: Sequence[Path]) -> None:
    """Refuse files that were replaced since they were planned on."""
    now = {entry.name: entry for file in files for entry in read_header(file)[0]}
    for step in steps:
        if step.source is not None and now.get(step.source.name) != step.source:
            raise BadCheckpoint(f"{step.source.file} changed since its header was read")


def _identity(file: Path) -> tuple[int, int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
