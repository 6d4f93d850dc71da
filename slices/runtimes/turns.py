"""Models on one machine take turns at its cores, a step each.

Threads of llama.cpp wait for one another by spinning, so two models that each have all cores take from each
other far more than half. A turn is a lock on a file: it ends with the process that has it, however that ends.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class Turns:
    """The turns of all models that one user runs on a machine, each with more than half of its cores."""

    def __init__(self, threads: int) -> None:
        """Take part with a model of so many threads; with few enough it need not wait for others."""
        folder = _folder() if 2 * threads > (os.cpu_count() or 1) else None
        self._files = [(folder / name).open("ab") for name in ("next", "now")] if folder else []

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a turn, and have it."""
        if sys.platform == "win32" or not self._files:
            yield
            return
        following, now = self._files
        fcntl.flock(following, fcntl.LOCK_EX)  # who waits goes before who has just been
        try:
            fcntl.flock(now, fcntl.LOCK_EX)
        finally:
            fcntl.flock(following, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(now, fcntl.LOCK_UN)

    def close(self) -> None:
        """Take part no longer; calling it twice is fine."""
        while self._files:
            self._files.pop().close()


def _folder() -> Path | None:
    """Of this machine alone; `$MOM_HOME` may be shared by several.

    None where the system has no such locks, or somebody else has taken the name: nobody waits then.
    """
    if sys.platform == "win32":
        return None
    found = Path(tempfile.gettempdir()) / f"mom-turns-{os.getuid()}"
    found.mkdir(mode=0o700, exist_ok=True)
    return found if found.lstat().st_uid == os.getuid() and not found.is_symlink() else None
