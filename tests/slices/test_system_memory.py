"""The memory that the machine has available, and systems that do not report it."""

from pathlib import Path

import pytest

from slices import system_memory


def test_available_memory_is_read_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(system_memory, "_MEMINFO", meminfo)
    assert system_memory.available_memory() is None
    meminfo.write_text("MemTotal: 10 kB\nMemAvailable:    3 kB\n")
    assert system_memory.available_memory() == 3072
    meminfo.write_text("MemTotal: 10 kB\n")
    assert system_memory.available_memory() is None
