"""A hidden folder beside an output, for files that come and go; what a killed run leaves, the next removes.

The folder is locked as long as its process lives, so that runs side by side leave each other alone.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".scratch-"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """An empty folder in `parent` (which is made, if need be), gone with all that is in it at the end."""
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
