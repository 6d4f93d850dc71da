"""Waiting for `q` in a pseudo-terminal."""

import os
import pty
import termios

import pytest

from mom.display.keyboard import quit_on_q


def test_q_ends_the_wait_and_the_terminal_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    hand, terminal = pty.openpty()
    with os.fdopen(terminal, "r") as stdin, os.fdopen(hand, "wb", buffering=0) as keys:
        monkeypatch.setattr("sys.stdin", stdin)
        before = termios.tcgetattr(terminal)
        with quit_on_q() as left:
            assert not termios.tcgetattr(terminal)[3] & termios.ECHO
            assert not left(0.01)
            keys.write(b"x")
            assert not left(0.05)
            keys.write(b"xq")
            assert left(20)
        assert termios.tcgetattr(terminal) == before
