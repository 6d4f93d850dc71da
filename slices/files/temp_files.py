"""Temporary files beside an output: a hidden directory of a run's own, and files without a name.

A directory is locked as long as its process lives: runs side by side leave each other alone, and what a
killed run leaves, the next one removes. An anonymous file (Linux's O_TMPFILE) is gone with its process;
where the file system has none, it is a file in such a directory.
"""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".scratch-"
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


@contextmanager
def temp_dir(parent: Path) -> Iterator[Path]:
    """An empty directory in `parent` (which is made, if need be), removed with its contents at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    for stale in parent.glob(f"{_PREFIX}*"):
        _remove_unlocked(stale)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = _lock(folder)
        if lock is not None and folder.is_dir():
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(lock)


@contextmanager
def anonymous_file(parent: Path, label: str) -> Iterator[Path]:
    """An empty file in the folder `parent`, removed at the end; `link_to` gives it a name.

    Other processes open it by the path that is given, as long as this one runs.

    Args:
        label: what an error message calls the file, in place of that path.
    """
    descriptor = _open_anonymous(parent)
    if descriptor is None:
        with temp_dir(parent) as folder:
            path = folder / "file"
            path.touch()
            with _relabel_errors(path, label):
                yield path
        return
    try:
        path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        with _relabel_errors(path, label):
            yield path
    finally:
        os.close(descriptor)


def link_to(path: Path, target: Path) -> None:
    """Sync a file of `anonymous_file` and give it the name `target`, by which it outlives its block."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if path.is_symlink():  # into /proc; `src_dir_fd` has Python call linkat, which follows it
        os.link(path, target, src_dir_fd=0, follow_symlinks=True)
    else:
        path.replace(target)


@contextmanager
def _relabel_errors(path: Path, label: str) -> Iterator[None]:
    """Errors of the block say `label` where they said `path`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and str(error.filename) == str(path):
            error.filename = label
        error.args = tuple(
            each.replace(str(path), label) if isinstance(each, str) else each for each in error.args
        )
        raise


def _open_anonymous(folder: Path) -> int | None:
    """A descriptor of a file without a name, None where the system has none."""
    flags = getattr(os, "O_TMPFILE", None)
    if flags is None or not Path(f"/proc/{os.getpid()}/fd").is_dir():
        return None
    try:
        return os.open(folder, flags | os.O_RDWR, 0o666)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock, or None where a process has it or the folder is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_unlocked(folder: Path) -> None:
    lock = _lock(folder)
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
