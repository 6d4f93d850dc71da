"""Atomic output: write to a temporary sibling, fsync, rename.

A killed process leaves at most a `.name.partial-PID` sibling, which the next run on that path removes
once its process is gone; killed in the moment of replacing a folder, it also leaves the old one as
`.name.old-PID`, which the next run puts back. Nothing here knows what is being written.
"""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slices.errors import Exists


def refuse_existing(target: Path, force: bool) -> None:
    """Raise `Exists` if `target` is there and may not be replaced."""
    if target.exists() and not force:
        raise Exists(f"{target} already exists; choose another output or pass --force to replace it")


@contextmanager
def staged(target: Path, force: bool = False) -> Iterator[Path]:
    """Yield a path beside `target` to write a file or a folder to; move it there when the block ends well.

    Raises:
        Exists: `target` is there and `force` is false, at entry or by the time of the rename.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    refuse_existing(target, force)
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    _remove(partial)
    try:
        yield partial
        _sync_tree(partial)
        refuse_existing(target, force)
        _swap(partial, target)
    finally:
        _remove(partial)


def write_text(target: Path, text: str) -> None:
    """Replace the file `target` by `text` (UTF-8) in one step."""
    with staged(target, force=True) as partial:
        partial.write_text(text, encoding="utf-8")


def _swap(partial: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        old = target.parent / f".{target.name}.old-{os.getpid()}"
        target.rename(old)
        partial.rename(target)
        shutil.rmtree(old)
    else:
        partial.replace(target)
    _sync(target.parent)


def _sync_tree(path: Path) -> None:
    for entry in [*path.rglob("*"), path] if path.is_dir() else [path]:
        _sync(entry)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(target: Path) -> None:
    """Remove what a killed process left of an earlier try at `target`; give back what it had set aside."""
    for stale in target.parent.glob(f".{glob.escape(target.name)}.*-*"):
        kind, _, rest = stale.name.removeprefix(f".{target.name}.").partition("-")
        if kind not in ("partial", "old") or _alive(rest):
            continue
        if kind == "old" and not target.exists():
            stale.rename(target)
        else:
            _remove(stale)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
