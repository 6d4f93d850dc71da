"""A file without a name can be written, read by another process and named; a kill leaves nothing of it."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slices.errors import BadCheckpoint
from slices.files.temp_files import anonymous_file, link_to
from slices.quant.quantize import quantize
from tests.slices.gguf_fixtures import SLIDING, visible_and_hidden, write_gemma3, write_manifest


@pytest.fixture(params=["anonymous", "hidden"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the system's anonymous files, and on a file system that has none."""
    real, flag = os.open, getattr(os, "O_TMPFILE", -1)

    def open_(path: str, flags: int, *rest: int, **more: int) -> int:
        if flags & flag == flag:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *rest, **more)

    if request.param == "hidden":
        monkeypatch.setattr(os, "open", open_)
    elif flag == -1:
        pytest.skip("this system has no anonymous files")
    return str(request.param)


def test_is_written_read_elsewhere_and_named(tmp_path: Path, kind: str) -> None:
    with anonymous_file(tmp_path, "label") as path:
        path.write_bytes(b"first")
        with path.open("r+b") as file:
            file.write(b"F")
        assert visible_and_hidden(tmp_path) == ({path.parent.name} if kind == "hidden" else set())
        assert subprocess.run(["cat", str(path)], capture_output=True, check=True).stdout == b"First"
        link_to(path, tmp_path / "named")
    assert visible_and_hidden(tmp_path) == {"named"}
    assert (tmp_path / "named").read_bytes() == b"First"


def test_is_gone_without_a_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ZeroDivisionError), anonymous_file(tmp_path, "label") as path:
        path.write_bytes(b"x")
        raise ZeroDivisionError
    assert visible_and_hidden(tmp_path) == set()


def test_errors_name_it_by_its_label(tmp_path: Path, kind: str) -> None:
    with pytest.raises(BadCheckpoint) as raised, anonymous_file(tmp_path, "out.gguf") as path:
        raise BadCheckpoint(f"{path}: it is damaged")
    assert str(raised.value) == "out.gguf: it is damaged"
    with pytest.raises(OSError, match=r"'out\.gguf'"), anonymous_file(tmp_path, "out.gguf") as path:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no anonymous files")
def test_a_name_that_is_taken_stays(tmp_path: Path) -> None:
    (tmp_path / "named").write_text("mine")
    with anonymous_file(tmp_path, "label") as path, pytest.raises(FileExistsError):
        link_to(path, tmp_path / "named")
    assert (tmp_path / "named").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no anonymous files")
def test_a_kill_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from slices.files.temp_files import anonymous_file\n"
        f"with anonymous_file(Path({str(tmp_path)!r}), 'label') as path:\n"
        "    path.write_bytes(b'x' * 9999); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert visible_and_hidden(tmp_path) == set()


def test_quantizing_does_without(tmp_path: Path, kind: str) -> None:
    folder = write_gemma3(tmp_path / "pico", [SLIDING])
    write_manifest(folder, "pico")
    before = visible_and_hidden(folder)
    done = quantize(folder, "Q8_0")
    assert done.bytes == done.predicted.bytes
    assert visible_and_hidden(folder) == before | {"pico-Q8_0.gguf"}
