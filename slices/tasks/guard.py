"""Inside the sandbox: give up what a program does not need, run it, and say that it ended well.

A program of its own (`slices.tasks.sandbox` starts it), so it imports nothing of ours.
"""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

_MEMORY = 1 << 30
_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000  # of Linux's unshare
_REFUSED: tuple[str, ...] = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.fork",
    "os.spawn",
    "os.posix_spawn",
    "os.kill",
)
_REFUSED += (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.symlink",
)
_REFUSED += ("os.truncate", "shutil.", "ctypes.", "pty.", "signal.", "sys.addaudithook")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main(path: str, seconds: int) -> None:
    """Run the program at `path`; what it prints is thrown away."""
    code = compile(Path(path).read_text(encoding="utf-8"), "program.py", "exec")
    says = os.dup(1)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    limit(seconds)
    sys.addaudithook(refuse)
    exec(code, {"__name__": "__main__"})
    os.write(says, b"passed")
    os._exit(0)


def limit(seconds: int) -> None:
    """Bounds that no program can raise again; where the kernel allows it, a network with nothing on it."""
    for what, most in (
        (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        resource.setrlimit(what, (most, most))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).unshare(_NEW_USER | _NEW_NETWORK)


def refuse(event: str, given: tuple[object, ...]) -> None:
    """Python's audit hook: what a program that answers a question has no need to do."""
    if event == "open" and isinstance(given[2], int) and given[2] & _WRITING:
        raise PermissionError("a program may not write files here")
    if event.startswith(_REFUSED):
        raise PermissionError(f"a program may not call {event} here")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
