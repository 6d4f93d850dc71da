"""A sandbox for generated programs: a child process with resource limits, an empty folder, no write access.

The limits are the system's (time, memory, files); where the kernel allows unprivileged network namespaces,
the child gets an empty one. Python's audit events stop the rest of what an honest mistake would do. The
sandbox guards against accidents, not malice: run code of an untrusted model on a separate machine.
"""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

TIMEOUT = 5.0  # seconds
_RUNNER = Path(__file__).with_name("sandbox_runner.py")
_PASSED = "passed"


def passes(program: str, timeout: float = TIMEOUT) -> bool:
    """Whether a Python program runs to its end without an error within `timeout` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.py"
        path.write_text(program, encoding="utf-8", errors="replace")
        command = [sys.executable, "-I", "-S", str(_RUNNER), str(path), str(int(timeout) + 1)]
        child = subprocess.Popen(
            command, cwd=folder, env={"PATH": ""}, stdin=subprocess.DEVNULL, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            output, _ = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            output = b""
        finally:
            _kill_group(child)
        return child.returncode == 0 and output.decode(errors="replace") == _PASSED


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and every process that it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout:
        child.stdout.close()
