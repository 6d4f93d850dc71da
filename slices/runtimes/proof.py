"""Has this GGUF been run before? If not, a child process tries it out: an abort there is an error here.

What passed is remembered in `$MOM_HOME/proven`, a small file each, so that the child runs once for a file:
until its header, size or time changes, or llama.cpp does. Whatever is wrong with such a note means
unproven; deleting them is safe. The file must have passed `slices.gguf.check` before.
"""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from slices.errors import MissingExtra, RunFailed
from slices.files.atomic import write_text
from slices.files.child_process import run_child
from slices.gguf.header import GGUFHeader
from slices.home import home

_SECONDS = 120.0  # for a file of no size
_BYTES_A_SECOND = 2**25  # a slow disk, or a slow processor behind a fast one


def ensure_proven(path: Path, header: GGUFHeader, threads: int, context: int) -> None:
    """Try the GGUF `path` out in a child process, unless it is known to run.

    Args:
        header: the file's, as `slices.gguf.check` read it.
        threads, context: what it is about to be opened with; a proof holds for any smaller context.

    Raises:
        RunFailed: the child refused it, died of it or did not come back; the message names the file.
        MissingExtra: llama-cpp-python is not installed.
    """
    note = note_of(path, header)
    if _proven_context(note) < context:
        prove(path, threads, context)
        remember(note, path, context)


def prove(path: Path, threads: int, context: int) -> None:
    """Try the GGUF `path` out in a child process. Raises as `ensure_proven`."""
    seconds = _SECONDS + path.stat().st_size / _BYTES_A_SECOND
    try:
        run_child("slices.runtimes.proof_child", [str(path), str(threads), str(context)], seconds=seconds)
    except RunFailed as error:
        named = "" if str(path) in str(error) else f"{path}: it was tried out in a process of its own: "
        raise RunFailed(f"{named}{error}") from None


def note_of(path: Path, header: GGUFHeader) -> Path:
    """Where it is noted that this very file runs in this very llama.cpp."""
    try:
        runs = version("llama-cpp-python")
    except PackageNotFoundError:
        raise MissingExtra("llama-cpp-python", "quantize") from None
    stat = path.stat()
    digest = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns} {runs} ".encode())
    with path.open("rb") as file:
        digest.update(file.read(header.nbytes))
    return home() / "proven" / f"{digest.hexdigest()}.json"


def remember(note: Path, path: Path, context: int) -> None:
    """Note that the GGUF `path` runs with `context`. Where there is no room for notes, there are none."""
    try:
        write_text(note, json.dumps({"file": str(path.resolve()), "context": context}))
    except OSError:
        return


def _proven_context(note: Path) -> int:
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    context = found.get("context") if isinstance(found, dict) else None
    return context if isinstance(context, int) else 0
