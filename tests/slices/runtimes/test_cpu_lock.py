"""The CPU lock: one holder at a time, fair, released by a dead process."""

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

from slices.runtimes.cpu_lock import CpuLock

ALL = cpu_count() or 1
OTHER = """
from os import cpu_count
from time import sleep
from slices.runtimes.cpu_lock import CpuLock
with CpuLock(cpu_count()).held():
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
    """Another process that holds the lock."""
    with subprocess.Popen([sys.executable, "-c", OTHER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "mine\n"
        try:
            yield process
        finally:
            process.kill()


def acquire(lock: CpuLock) -> threading.Thread:
    """A thread that acquires the lock, releases it and ends."""

    def hold() -> None:
        with lock.held():
            pass

    thread = threading.Thread(target=hold)
    thread.start()
    return thread


def test_the_lock_is_waited_for_and_released_by_a_dead_process() -> None:
    with closing(CpuLock(ALL)) as lock, another() as process:
        waiting = acquire(lock)
        waiting.join(0.3)
        assert waiting.is_alive()
        process.kill()
        waiting.join(30)
        assert not waiting.is_alive()
    lock.close()


@pytest.mark.skipif(ALL < 2, reason="one core has no half")
def test_a_model_of_few_threads_never_waits() -> None:
    with another(), closing(CpuLock(ALL // 2)) as lock:
        few = acquire(lock)
        few.join(30)
        assert not few.is_alive()


def test_a_waiter_goes_before_the_last_holder() -> None:
    """A holder that acquires it again and again lets another in each time."""
    order: list[str] = []

    def again(name: str, lock: CpuLock) -> None:
        for _ in range(10):
            with lock.held():
                order.append(name)
                sleep(0.01)

    with closing(CpuLock(ALL)) as mine, closing(CpuLock(ALL)) as theirs:
        threads = [threading.Thread(target=again, args=pair) for pair in (("a", mine), ("b", theirs))]
        begun = monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert monotonic() - begun >= 0.2  # never both at once
    assert "".join(order[:10]) not in ("a" * 10, "b" * 10)


def test_a_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    """Nor is one that a link leads to."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"mom-cpu-lock-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with closing(CpuLock(ALL)) as lock, lock.held():
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []
