"""Programs that a model wrote, run apart: a child process with limits, an empty folder, nothing to write to.

The limits are the system's (time, memory, files); where the kernel lets anyone have a network of their own,
the child gets an empty one. Python's audit events stop the rest of what an honest mistake would do. That is a
fence against accidents, not malice: run code of a model that you do not trust on a machine apart.
"""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

SECONDS = 5.0
_GUARD = Path(__file__).with_name("guard.py")
_PASSED = "passed"


def passes(program: str, seconds: float = SECONDS) -> bool:
    """Whether a Python program runs to its end, without an error, in time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.py"
        path.write_text(program, encoding="utf-8", errors="replace")
        command = [sys.executable, "-I", "-S", str(_GUARD), str(path), str(int(seconds) + 1)]
        child = subprocess.Popen(
            command, cwd=folder, env={"PATH": ""}, stdin=subprocess.DEVNULL, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            told, _ = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            told = b""
        finally:
            _end(child)
        return child.returncode == 0 and told.decode(errors="replace") == _PASSED


def _end(child: subprocess.Popen[bytes]) -> None:
    """The child and whatever it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout:
        child.stdout.close()
