"""One of our modules as a child process, for work that may end its process: llama.cpp aborts.

The parent's side is `run_child`, the child's is `work_as_child`. What the child does, and what becomes of
its lines, is the caller's.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from slices.errors import RunFailed, SliceError

_TAIL = 2**16  # bytes of problems worth reading


def run_child(
    module: str,
    arguments: Sequence[str],
    on_line: Callable[[str], None] | None = None,
    seconds: float | None = None,
) -> None:
    """Run `python -m module arguments`; it ends with this process, however that ends.

    Args:
        on_line: called with each line that the child prints.
        seconds: how long it may take; None for as long as it likes.

    Raises:
        RunFailed: it could not start, ended badly, was ended by a signal (then with its last line on
            stderr), or took too long.
    """
    with tempfile.TemporaryFile() as errors, _start(module, arguments, errors.fileno()) as child:
        late = threading.Event()
        watch = threading.Timer(seconds, _end, (child, late)) if seconds is not None else None
        try:
            if watch:
                watch.start()
            for line in child.stdout or ():
                if on_line:
                    on_line(line.rstrip("\n"))
            status = child.wait()
        except BaseException:
            child.kill()
            raise
        finally:
            if watch:
                watch.cancel()
        if late.is_set():
            raise RunFailed(f"it took longer than {seconds:.0f} s and was ended")
        if status:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - _TAIL))
            raise RunFailed(_reason(status, errors.read().decode(errors="replace")))


def end_with_parent() -> None:
    """Call first in a child: its process ends when the parent's does."""
    threading.Thread(target=_await_the_end, daemon=True).start()


def work_as_child(work: Callable[[list[str]], None]) -> NoReturn:
    """Do a child's work on its arguments and end it; an error that is the user's to mend is its last line.

    Ends without waiting for the thread that watches the parent.
    """
    end_with_parent()
    status = 0
    try:
        work(sys.argv[1:])
    except SliceError as error:
        print(error, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _start(module: str, arguments: Sequence[str], errors: int) -> "subprocess.Popen[str]":
    try:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(),
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise RunFailed(f"could not start a process: {error}; is there memory left?") from None


def _environment() -> dict[str, str]:
    """Ours, with this package importable, and no debugger attached to an abort."""
    paths = [str(Path(__file__).parent.parent.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "GGML_NO_BACKTRACE": "1"}


def _end(child: "subprocess.Popen[str]", late: threading.Event) -> None:
    late.set()
    child.kill()


def _await_the_end() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _reason(status: int, problem: str) -> str:
    lines = [line.strip() for line in problem.splitlines() if line.strip()]
    last = lines[-1] if lines else "it gave no reason"
    if status == -signal.SIGKILL:
        last += "; the system does so where memory runs out"
    if status == -signal.SIGILL:
        last += "; it was built with instructions that fail here (README, Install)"
    if status < 0:
        return f"llama.cpp ended its process with {signal.Signals(-status).name}: {last}"
    return last
