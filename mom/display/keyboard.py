"""Waiting in a terminal until `q` is pressed. Where there is no terminal nobody presses it."""

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
def waiting() -> Iterator[Callable[[float], bool]]:
    """A function that waits for so many seconds and returns whether `q` ended that; ctrl-c works as ever.

    The terminal echoes nothing meanwhile, and is as it was afterwards.
    """
    if not sys.stdin.isatty():
        yield _slept
        return
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    tty.setcbreak(keys)
    try:
        yield partial(_pressed, keys)
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)


def _pressed(keys: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([keys], [], [], left)
        if ready and os.read(keys, 1) in (b"q", b"Q", b""):  # nothing: the terminal is gone
            return True
    return False


def _slept(seconds: float) -> bool:
    time.sleep(seconds)
    return False
