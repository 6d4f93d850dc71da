"""Room on the disk: refuse before the work, and say so when it runs out amid it."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slices.errors import RunFailed, SliceError

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_PROBE = 2**20


def check_room(target: Path, nbytes: int, what: str) -> None:
    """Refuse to write `nbytes` bytes beside `target` where less is free; `what` says what they are.

    Raises:
        SliceError: less is free.
    """
    existing = next(folder for folder in target.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < nbytes:
        raise SliceError(
            f"{target} needs {nbytes:,} bytes ({what}), but only {free:,} are free there; "
            "free some, or say with -o where there is room"
        )


@contextmanager
def tell_full_disk(target: Path, *written: Path) -> Iterator[None]:
    """Have a failure to write `target` say that the disk is full, if so it is.

    A library that writes the files `written` may tell no more than that it failed; so the disk itself is
    asked, by writing a little more to them.

    Raises:
        RunFailed: the disk is full, or a limit on the size of files is reached.
    """
    try:
        yield
    except (OSError, RunFailed) as error:
        number = error.errno if isinstance(error, OSError) else _refused(written)
        if number not in _FULL:
            raise
        raise RunFailed(
            f"{target} could not be written: {os.strerror(number)}; nothing is left of it. "
            "Free some room, or say with -o where there is some"
        ) from None


def _refused(paths: tuple[Path, ...]) -> int | None:
    """The error number of writing a little more to one of the files that are there, or None."""
    for path in filter(Path.exists, paths):
        try:
            with path.open("ab") as file:
                file.write(b"\1" * _PROBE)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            return error.errno
    return None
