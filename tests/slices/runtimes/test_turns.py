"""Models take turns, and a dead one gives its turn back."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from os import cpu_count
from pathlib import Path
from time import monotonic, sleep

import pytest

from slices.runtimes.turns import Turns

ALL = cpu_count() or 1
OTHER = """
from os import cpu_count
from time import sleep
from slices.runtimes.turns import Turns
with Turns(cpu_count()).taken():
    print("mine", flush=True)
    sleep(60)
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One on which nothing else runs."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@contextmanager
def another() -> Iterator[subprocess.Popen[str]]:
    """Another process, at its turn."""
    with subprocess.Popen([sys.executable, "-c", OTHER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "mine\n"
        try:
            yield process
        finally:
            process.kill()


def takes(turns: Turns) -> threading.Thread:
    """A thread that takes a turn, and ends."""

    def take() -> None:
        with turns.taken():
            pass

    thread = threading.Thread(target=take)
    thread.start()
    return thread


def test_a_turn_is_waited_for_and_given_back_by_a_dead_process() -> None:
    with closing(Turns(ALL)) as turns, another() as process:
        waiting = takes(turns)
        waiting.join(0.3)
        assert waiting.is_alive()
        process.kill()
        waiting.join(30)
        assert not waiting.is_alive()
    turns.close()


@pytest.mark.skipif(ALL < 2, reason="one core has no half")
def test_who_needs_few_cores_waits_for_nobody() -> None:
    with another(), closing(Turns(ALL // 2)) as turns:
        few = takes(turns)
        few.join(30)
        assert not few.is_alive()


def test_who_waits_goes_before_who_has_just_been() -> None:
    """One that takes turn after turn leaves room for another each time."""
    order: list[str] = []

    def again(name: str, turns: Turns) -> None:
        for _ in range(10):
            with turns.taken():
                order.append(name)
                sleep(0.01)

    with closing(Turns(ALL)) as mine, closing(Turns(ALL)) as theirs:
        threads = [threading.Thread(target=again, args=pair) for pair in (("a", mine), ("b", theirs))]
        begun = monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert monotonic() - begun >= 0.2  # never both at once
    assert "".join(order[:10]) not in ("a" * 10, "b" * 10)


def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    """Nor is one that a link leads to."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"mom-turns-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with closing(Turns(ALL)) as turns, turns.taken():
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []
