"""A lock on the processor's cores, across processes: one model at a time decodes a batch.

llama.cpp's threads wait for each other by spinning, so two models that each use all cores slow each other
down to far less than half. The lock is a file lock: it is released when its process ends.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class CpuLock:
    """The lock of one user's models on one machine, for those that use more than half of its cores."""

    def __init__(self, threads: int) -> None:
        """Open the lock for a model of `threads` threads; with half of the cores or fewer it never waits."""
        folder = _folder() if 2 * threads > (os.cpu_count() or 1) else None
        self._files = [(folder / name).open("ab") for name in ("queue", "owner")] if folder else []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lock, and hold it for the block. Fair: a waiter goes before the last holder."""
        if sys.platform == "win32" or not self._files:
            yield
            return
        queue, owner = self._files
        fcntl.flock(queue, fcntl.LOCK_EX)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX)
        finally:
            fcntl.flock(queue, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(owner, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the lock's files; calling it twice is fine."""
        while self._files:
            self._files.pop().close()


def _folder() -> Path | None:
    """The folder of the lock's files: of this machine alone, since `$MOM_HOME` may be shared by several.

    None where the system has no file locks, or another user owns the name: then nobody waits.
    """
    if sys.platform == "win32":
        return None
    folder = Path(tempfile.gettempdir()) / f"mom-cpu-lock-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder if folder.lstat().st_uid == os.getuid() and not folder.is_symlink() else None
