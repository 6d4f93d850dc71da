"""Apply a plan: copy whole tensors inside the kernel, gather kept rows and columns in bounded blocks.

Decides nothing and imports no torch. The offset of every byte is known beforehand, so a few threads read,
gather and write concurrently; memory stays below a few blocks, whatever the tensor.
"""

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from slices.cut.gather import Buffers, byte_range, gather, read_exactly, truncated_error
from slices.cut.plan import Plan, TensorPlan
from slices.cut.schedule import CopyRange, FillRange, GatherRows, Operation, chunks, schedule
from slices.errors import BadCheckpoint
from slices.files.safetensors_header import read_header
from slices.files.safetensors_writer import write_at, write_index
from slices.progress import Progress, no_progress

_RELEASE_EVERY = 64 * 2**20  # written bytes between two releases of page cache
_THREADS = 2  # one reads while the other writes
_NO_KERNEL_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


class _Worker:
    """The state of one thread: buffers, and file descriptors of its own, so that the kernel reads ahead."""

    def __init__(self, files: Iterable[Path], stack: ExitStack) -> None:
        self.sources = {file: stack.enter_context(file.open("rb", buffering=0)).fileno() for file in files}
        self.buffers = Buffers()
        self.released = 0  # in units of `_RELEASE_EVERY`


def extract(plan: Plan, folder: Path, progress: Progress = no_progress) -> None:
    """Write the plan's weight files into `folder`.

    Args:
        progress: called with the bytes written and their total.

    Raises:
        BadCheckpoint: a source file is not what was planned on, ends early or changed while it was read,
            or a gathered tensor holds NaN or infinity.
        OSError: the disk is full.
    """
    files = sorted({tensor.source.file for tensor in plan.tensors if tensor.source is not None})
    before = {file: _identity(file) for file in files}
    _check_unchanged(plan.tensors, files)
    _write(plan, folder, files, _byte_counter(plan.nbytes, progress))
    changed = next((file for file in files if _identity(file) != before[file]), None)
    if changed is not None:
        raise BadCheckpoint(f"{changed} changed while it was read")


def _byte_counter(total: int, progress: Progress) -> Callable[[int], None]:
    """A function that adds written bytes and reports their sum."""
    written = 0

    def add(count: int) -> None:
        nonlocal written
        written += count
        progress("extract", written, total)

    return add


def _write(plan: Plan, folder: Path, files: Sequence[Path], add: Callable[[int], None]) -> None:
    tensors = {tensor.slot.name: tensor for tensor in plan.tensors}
    release = plan.nbytes > _total_memory() / 4
    with ExitStack() as stack:
        workers: SimpleQueue[_Worker] = SimpleQueue()
        for _ in range(_THREADS):
            workers.put(_Worker(files, stack))
        pool = stack.enter_context(ThreadPoolExecutor(_THREADS))
        for shard in plan.layout.shards:
            with (folder / shard.file).open("xb", buffering=0) as file:
                out = file.fileno()
                add(write_at(out, shard.header, 0))
                operations = chunks(schedule(shard, [tensors[slot.name] for slot in shard.slots]))
                _in_parallel(pool, (_job(each, workers, out, release) for each in operations), add)
                if os.fstat(out).st_size != shard.nbytes:
                    raise RuntimeError(f"{shard.file}: planned {shard.nbytes} bytes, wrote otherwise")
    add(write_index(folder, plan.layout))


def _job(operation: Operation, workers: "SimpleQueue[_Worker]", out: int, release: bool) -> Callable[[], int]:
    def run() -> int:
        worker = workers.get()
        try:
            count = _execute(operation, worker, out)
            if release:
                _release_pages(operation, worker, out)
            return count
        finally:
            workers.put(worker)

    return run


def _release_pages(operation: Operation, worker: _Worker, out: int) -> None:
    """Drop what was read and, once it is on disk, what was written from the page cache.

    A slice that fills the memory with cached pages makes the kernel search for free ones at every write.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    match operation:
        case CopyRange():
            _drop_pages(worker.sources[operation.entry.file], operation.start, operation.nbytes)
        case GatherRows():
            start, count = byte_range(operation.matrix, operation.first, operation.last)
            _drop_pages(worker.sources[operation.matrix.entry.file], start, count)
    released = operation.target // _RELEASE_EVERY
    if released != worker.released:
        worker.released = released
        _drop_pages(out, max(0, operation.target - 4 * _RELEASE_EVERY), 4 * _RELEASE_EVERY)


def _drop_pages(descriptor: int, start: int, count: int) -> None:
    os.posix_fadvise(descriptor, start, count, os.POSIX_FADV_DONTNEED)


def _execute(operation: Operation, worker: _Worker, out: int) -> int:
    """Write the bytes of one operation; returns how many."""
    match operation:
        case CopyRange():
            _read_ahead(worker.sources[operation.entry.file], operation.start, operation.nbytes)
            return _copy(operation, worker, out)
        case FillRange():
            data = operation.pattern * (operation.nbytes // len(operation.pattern))
            return write_at(out, data, operation.target)
        case GatherRows():
            source = worker.sources[operation.matrix.entry.file]
            block = gather(operation.matrix, operation.first, operation.last, source, worker.buffers)
            return write_at(out, block.reshape(-1).view(np.uint8).data, operation.target)


def _in_parallel(
    pool: ThreadPoolExecutor, jobs: Iterator[Callable[[], int]], add: Callable[[int], None]
) -> None:
    """Run the jobs, few at a time; after the first that fails no other is begun."""
    pending: deque[Future[int]] = deque()
    try:
        for job in jobs:
            pending.append(pool.submit(job))
            if len(pending) > 2 * _THREADS:
                add(pending.popleft().result())
        while pending:
            add(pending.popleft().result())
    finally:
        for future in pending:
            future.cancel()


def _copy(copy: CopyRange, worker: _Worker, out: int) -> int:
    """Copy inside the kernel where the file system supports it, else through a buffer."""
    source, done = worker.sources[copy.entry.file], 0
    while done < copy.nbytes:
        try:
            count = os.copy_file_range(source, out, copy.nbytes - done, copy.start + done, copy.target + done)
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
            return done + _copy_buffered(copy, done, worker, out)
        except AttributeError:  # not Linux
            return _copy_buffered(copy, done, worker, out)
        if count == 0:
            raise truncated_error(copy.entry)
        done += count
    return done


def _copy_buffered(copy: CopyRange, done: int, worker: _Worker, out: int) -> int:
    block = worker.buffers.read(copy.nbytes - done)
    read_exactly(copy.entry, worker.sources[copy.entry.file], copy.start + done, block)
    return write_at(out, block.data, copy.target + done)


def _total_memory() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read_ahead(source: int, start: int, count: int) -> None:
    """Let the disk read what the next copy needs while the last one is being written."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(source, start, count, os.POSIX_FADV_WILLNEED)


def _check_unchanged(tensors: Sequence[TensorPlan], files: Sequence[Path]) -> None:
    """Refuse files that were replaced since they were planned on."""
    entries = {entry.name: entry for file in files for entry in read_header(file)[0]}
    for tensor in tensors:
        if tensor.source is not None and entries.get(tensor.source.name) != tensor.source:
            raise BadCheckpoint(f"{tensor.source.file} changed since its header was read")


def _identity(file: Path) -> tuple[int, int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
