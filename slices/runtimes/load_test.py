"""Load test of a GGUF before it is served: a child process loads and runs it, since llama.cpp may abort.

A file that passed is recorded in `$MOM_HOME/load_tested`, so that the test runs once for a file, until its
header, size or time changes, or llama.cpp does. A damaged record counts as none; deleting records is safe.
The file must have passed `slices.gguf.check` before.
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

_TIMEOUT = 120.0  # seconds, for a file of no size
_BYTES_PER_SECOND = 2**25  # a slow disk, or a slow processor behind a fast one


def ensure_load_tested(path: Path, header: GGUFHeader, threads: int, n_ctx: int) -> None:
    """Run the load test of the GGUF `path`, unless it is recorded as passed.

    Args:
        header: the file's, as `slices.gguf.check` read it.
        threads, n_ctx: what it is about to be opened with; a record holds for any smaller context.

    Raises:
        RunFailed: the child refused it, died of it or timed out; the message names the file.
        MissingExtra: llama-cpp-python is not installed.
    """
    record = record_path(path, header)
    if _tested_n_ctx(record) < n_ctx:
        load_test(path, threads, n_ctx)
        record_passed(record, path, n_ctx)


def load_test(path: Path, threads: int, n_ctx: int) -> None:
    """Load and run the GGUF `path` in a child process. Raises as `ensure_load_tested`."""
    timeout = _TIMEOUT + path.stat().st_size / _BYTES_PER_SECOND
    try:
        run_child("slices.runtimes.load_test_child", [str(path), str(threads), str(n_ctx)], seconds=timeout)
    except RunFailed as error:
        prefix = "" if str(path) in str(error) else f"{path}: the load test failed: "
        raise RunFailed(f"{prefix}{error}") from None


def record_path(path: Path, header: GGUFHeader) -> Path:
    """The path of the record that this very file passed in the installed llama.cpp."""
    try:
        llama_version = version("llama-cpp-python")
    except PackageNotFoundError:
        raise MissingExtra("llama-cpp-python", "quantize") from None
    stat = path.stat()
    digest = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns} {llama_version} ".encode())
    with path.open("rb") as file:
        digest.update(file.read(header.nbytes))
    return home() / "load_tested" / f"{digest.hexdigest()}.json"


def record_passed(record: Path, path: Path, n_ctx: int) -> None:
    """Record that the GGUF `path` passed with `n_ctx`; nothing where the record cannot be written."""
    try:
        write_text(record, json.dumps({"file": str(path.resolve()), "n_ctx": n_ctx}))
    except OSError:
        return


def _tested_n_ctx(record: Path) -> int:
    """The largest context that passed; 0 without a record."""
    try:
        stored = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    n_ctx = stored.get("n_ctx") if isinstance(stored, dict) else None
    return n_ctx if isinstance(n_ctx, int) else 0
