"""The program inside the sandbox: it drops what a solution does not need, runs it, and reports success.

`slices.tasks.sandbox` starts it as a process of its own, so it imports nothing of this package.
"""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

_MEMORY = 1 << 30
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000  # flags of Linux's unshare
_DENIED_EVENTS: tuple[str, ...] = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.fork",
    "os.spawn",
    "os.posix_spawn",
    "os.kill",
)
_DENIED_EVENTS += (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.symlink",
)
_DENIED_EVENTS += ("os.truncate", "shutil.", "ctypes.", "pty.", "signal.", "sys.addaudithook")
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main(path: str, cpu_seconds: int) -> None:
    """Run the program at `path`; its output is discarded."""
    code = compile(Path(path).read_text(encoding="utf-8"), "program.py", "exec")
    stdout = os.dup(1)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    set_limits(cpu_seconds)
    sys.addaudithook(audit)
    exec(code, {"__name__": "__main__"})
    os.write(stdout, b"passed")
    os._exit(0)


def set_limits(cpu_seconds: int) -> None:
    """Set limits that no program can raise again, and an empty network namespace where the kernel allows."""
    for limit, maximum in (
        (resource.RLIMIT_CPU, cpu_seconds), (resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        resource.setrlimit(limit, (maximum, maximum))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def audit(event: str, arguments: tuple[object, ...]) -> None:
    """Python's audit hook: raise on what a program that answers a question has no need to do."""
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITE_FLAGS:
        raise PermissionError("a program may not write files here")
    if event.startswith(_DENIED_EVENTS):
        raise PermissionError(f"a program may not call {event} here")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
