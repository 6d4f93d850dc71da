"""Models on one machine take turns at its cores, a step each.

Threads of llama.cpp wait for one another by spinning, so two models that each have all cores take from each
other far more than half. A turn is a lock on a file: it ends with the process that has it, however that ends.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from os import cpu_count

from slices.home import home

if sys.platform != "win32":
    import fcntl


class Turns:
    """The turns of every model of one `$MOM_HOME` that works with more than half of the cores."""

    def __init__(self, threads: int) -> None:
        """Take part with a model of so many threads; with few enough it need not wait for others."""
        self._files = []
        if sys.platform != "win32" and 2 * threads > (cpu_count() or 1):
            folder = home() / "turns"
            folder.mkdir(parents=True, exist_ok=True)
            self._files = [(folder / name).open("ab") for name in ("next", "now")]

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
