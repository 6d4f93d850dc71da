"""The command line as tests call it: in a process of its own, or here, where torch is loaded already."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from typing import Any
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
    out, err, status = io.StringIO(), io.StringIO(), 0
    with patch.object(sys, "argv", ["mom", *arguments]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return CompletedProcess(["mom", *arguments], status, out.getvalue(), err.getvalue())


def parsed(*arguments: str) -> dict[str, Any]:
    """What a command that must succeed prints with --json."""
    done = mom(*arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
