"""Waiting in a terminal until `q` is pressed; without a terminal it is never pressed."""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial


@contextmanager
def quit_on_q() -> Iterator[Callable[[float], bool]]:
    """A function that waits for so many seconds and returns whether `q` was pressed; ctrl-c works as ever.

    The terminal echoes nothing meanwhile, and is restored afterwards.
    """
    if not sys.stdin.isatty():
        yield _sleep
        return
    stdin = sys.stdin.fileno()
    attributes = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)
    try:
        yield partial(_wait_for_q, stdin)
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, attributes)


def _wait_for_q(stdin: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (remaining := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([stdin], [], [], remaining)
        if ready and os.read(stdin, 1) in (b"q", b"Q", b""):  # nothing: the terminal is gone
            return True
    return False


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
