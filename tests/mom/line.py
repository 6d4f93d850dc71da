"""The command line as tests call it: in a process of its own, or here, where torch is loaded already."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from tempfile import TemporaryFile
from typing import IO, Any
from unittest.mock import patch

from mom.cli import main


def mom_alone(*arguments: str, hide: str = "") -> "CompletedProcess[str]":
    """Run it in a process of its own; `hide` makes a package impossible to import."""
    blocked = f"sys.modules[{hide!r}] = None; " if hide else ""
    code = f"import sys; {blocked}from mom.cli import main; main()"
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def mom(*arguments: str) -> "CompletedProcess[str]":
    """Run the same entry point here: importing torch takes longer than most commands on a pico."""
    status = 0
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        with patch.object(sys, "argv", ["mom", *arguments]), _written_to(out, err):
            try:
                main()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
        out.seek(0)
        err.seek(0)
        return CompletedProcess(["mom", *arguments], status, out.read(), err.read())


@contextmanager
def _written_to(out: IO[str], err: IO[str]) -> Iterator[None]:
    """Everything that is said, also by C, which knows nothing of `sys.stdout`."""
    before = os.dup(1), os.dup(2)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            yield
    finally:
        out.flush()
        err.flush()
        for number, kept in enumerate(before, start=1):
            os.dup2(kept, number)
            os.close(kept)


def parsed(*arguments: str) -> dict[str, Any]:
    """What a command that must succeed prints with --json."""
    done = mom(*arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
