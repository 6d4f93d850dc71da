"""Free disk space: checked before a file is written, and named as the cause where it runs out."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slices.errors import RunFailed, SliceError

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_PROBE = 2**20


def check_free_space(target: Path, nbytes: int, what: str) -> None:
    """Refuse to write `nbytes` bytes beside `target` where less is free.

    Args:
        what: what the bytes are, for the message.

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
def map_full_disk_error(target: Path, *written: Path) -> Iterator[None]:
    """Turn a failure to write `target` that a full disk caused into a `RunFailed` that says so.

    A library that writes the files `written` may report no error number; appending to them then finds out.

    Raises:
        RunFailed: the disk is full, or a limit on the size of files is reached.
    """
    try:
        yield
    except (OSError, RunFailed) as error:
        number = error.errno if isinstance(error, OSError) else _append_error(written)
        if number not in _FULL:
            raise
        raise RunFailed(
            f"{target} could not be written: {os.strerror(number)}; nothing is left of it. "
            "Free some room, or say with -o where there is some"
        ) from None


def _append_error(paths: tuple[Path, ...]) -> int | None:
    """The error number of appending to one of the files that exist, None where that succeeds."""
    for path in filter(Path.exists, paths):
        try:
            with path.open("ab") as file:
                file.write(b"\1" * _PROBE)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            return error.errno
    return None
