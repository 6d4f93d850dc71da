"""Temporary files without a name: nothing of them is left when the process that writes them is killed.

Where the system has them (Linux, on most file systems); elsewhere a hidden file, which the next run sweeps
away (`slices.files.atomic`). Other processes open one by the path that is given, as long as this one runs.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNKNOWN = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


@contextmanager
def nameless_file(fallback: Path) -> Iterator[Path]:
    """An empty file in the folder of `fallback`, gone when the block ends; called so if need be."""
    descriptor = _open(fallback.parent)
    if descriptor is None:
        try:
            fallback.touch()
            yield fallback
        finally:
            fallback.unlink(missing_ok=True)
        return
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)


def give_name(path: Path, name: Path) -> None:
    """Have a file of `nameless_file` bear `name`, synced, and outlive its block."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if path.is_symlink():  # into /proc; `src_dir_fd` has Python call linkat, which follows it
        os.link(path, name, src_dir_fd=0, follow_symlinks=True)
    else:
        path.replace(name)


def _open(folder: Path) -> int | None:
    flags = getattr(os, "O_TMPFILE", None)
    if flags is None or not Path(f"/proc/{os.getpid()}/fd").is_dir():
        return None
    try:
        return os.open(folder, flags | os.O_RDWR, 0o666)
    except OSError as error:
        if error.errno in _UNKNOWN:
            return None
        raise
