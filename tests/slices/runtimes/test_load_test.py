"""A GGUF is load-tested in a child process before its first use: once, within limits, and at no risk here."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slices.errors import RunFailed
from slices.export import export
from slices.files.child_process import _reason, run_child
from slices.gguf.header import read_gguf_header
from slices.runtimes.load_test import load_test, record_path
from slices.runtimes.open import open_runtime
from tests.slices.gguf_document import ARRAY, BOOL, I32, STR, U32, Document, Value, parse, render
from tests.slices.gguf_fixtures import FULL, SLIDING, write_gemma3

SLEEPS = "import sys, time\nfrom slices.files.child_process import end_with_parent\nend_with_parent()\n"
SLEEPS += "import os\nopen(sys.argv[1], 'w').write(str(os.getpid()))\ntime.sleep(600)\n"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Document:
    folder = tmp_path_factory.mktemp("good")
    slice_ = write_gemma3(folder / "slice", [SLIDING, FULL], max_position_embeddings=2**21)
    return parse(export(slice_, folder / "good.gguf").read_bytes())


@pytest.fixture
def file(good: Document, tmp_path: Path) -> Path:
    (tmp_path / "good.gguf").write_bytes(render(good))
    return tmp_path / "good.gguf"


@pytest.fixture
def sleeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that says who it is and then never ends."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "never_ending.py").write_text(SLEEPS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    return "never_ending"


def opened(file: Path, context: int = 256) -> None:
    open_runtime(file.parent, Path(file.name), threads=1, max_model_len=context).close()


def no_more_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")


def test_a_file_is_load_tested_once(file: Path, mom_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(file, 512)
    (record,) = (mom_home / "load_tested").iterdir()
    assert json.loads(record.read_text()) == {"file": str(file.resolve()), "n_ctx": 512}
    no_more_children(monkeypatch)
    opened(file, 512)
    opened(file, 256)
    opened(file, 300)  # counts as 512
    with pytest.raises(RunFailed, match=r"good\.gguf: .*/nowhere/python"):
        opened(file, 1024)


CHANGES: dict[str, Callable[[Path, Path], object]] = {
    "another time": lambda file, record: os.utime(file, ns=(1, 1)),
    "another header": lambda file, record: _rewrite(file, b"slice", b"Slice"),
    "no record": lambda file, record: record.unlink(),
    "an empty record": lambda file, record: record.write_text(""),
    "a record of something else": lambda file, record: record.write_text("[3]"),
    "a context in words": lambda file, record: record.write_text('{"n_ctx": "1024"}'),
    "no UTF-8": lambda file, record: record.write_bytes(b"\xff\xfe"),
}


def _rewrite(file: Path, old: bytes, new: bytes) -> None:
    """Change a file and give it its old time back."""
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    raw = file.read_bytes()
    assert old in raw
    file.write_bytes(raw.replace(old, new))
    os.utime(file, ns=times)


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_load_tested_again(
    change: str, file: Path, mom_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(file)
    (record,) = (mom_home / "load_tested").iterdir()
    CHANGES[change](file, record)
    with monkeypatch.context() as patch, pytest.raises(RunFailed, match="/nowhere/python"):
        no_more_children(patch)
        opened(file)
    opened(file)
    no_more_children(monkeypatch)
    opened(file)


def test_another_llama_cpp_has_its_own_record(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = read_gguf_header(file)
    before = record_path(file, header)
    monkeypatch.setattr("slices.runtimes.load_test.version", lambda name: "0.0.1")
    assert record_path(file, header) != before


def test_records_that_cannot_be_written_do_no_harm(file: Path, mom_home: Path) -> None:
    mom_home.write_text("not a folder")
    opened(file)
    opened(file)


ABORTS: dict[str, tuple[Callable[[Document], None], str]] = {
    "too many layers": (lambda d: d.set("gemma3.block_count", Value(U32, 600)), "SIGABRT.*n_layer_all"),
    "a window for nothing": (
        lambda d: d.set("gemma3.attention.sliding_window_pattern", Value(ARRAY, [False] * 2, BOOL)),
        "SIGABRT.*is_swa_any",
    ),
    "two tokens alike": (lambda d: _token(d, 300, b"<bos>"), "SIGABRT.*token_to_id"),
    "a byte that no token is for": (lambda d: _token(d, 12 + 0xC3, b"odd"), "SIGABRT"),
    "scaled who knows how": (lambda d: d.set("gemma3.rope.scaling.type", Value(STR, "x")), "SIGABRT.*rope"),
    "more turned than there is": (
        lambda d: d.set("gemma3.rope.dimension_count", Value(U32, 66)), "SIGABRT.*n_dims",
    ),
}  # fmt: skip


def _token(document: Document, at: int, text: bytes) -> None:
    document.keys["tokenizer.ggml.tokens"].value[at] = text


@pytest.mark.parametrize("hazard", ABORTS)
def test_an_abort_there_is_an_error_here(hazard: str, good: Document, tmp_path: Path) -> None:
    """These never get as far as this past the check; llama.cpp does end its process on each."""
    change, cause = ABORTS[hazard]
    document = good.copy()
    change(document)
    (tmp_path / "bad.gguf").write_bytes(render(document))
    with pytest.raises(RunFailed, match=rf"bad\.gguf: .*ended its process with {cause}"):
        load_test(tmp_path / "bad.gguf", threads=1, n_ctx=256)


def test_instructions_that_fail_here_lead_to_the_readme() -> None:
    assert "SIGILL: it gave no reason; it was built with instructions that fail here" in _reason(-4, "")


REFUSED: dict[str, tuple[Callable[[Document], None], str]] = {
    "a setting of another type": (
        lambda d: d.set("general.file_type", Value(I32, 32)), "general.file_type has wrong type",
    ),
    "weights that are no numbers": (lambda d: _spoil(d, b"\xff"), "blk.1.attn_q.weight"),
    "weights too large": (lambda d: _spoil(d, b"\x7f"), "not finite|invalid data"),
}  # fmt: skip


def _spoil(document: Document, byte: bytes) -> None:
    blob = document.tensors["blk.1.attn_q.weight"]
    document.tensors["blk.1.attn_q.weight"] = type(blob)(blob.shape, blob.type, byte * len(blob.data))


@pytest.mark.parametrize("fault", REFUSED)
def test_what_passes_the_check_may_still_be_refused(fault: str, good: Document, tmp_path: Path) -> None:
    change, cause = REFUSED[fault]
    document = good.copy()
    change(document)
    (tmp_path / "bad.gguf").write_bytes(render(document))
    with pytest.raises(RunFailed, match=cause) as caught:
        opened(tmp_path / "bad.gguf")
    assert str(tmp_path / "bad.gguf") in str(caught.value)


def test_a_context_that_memory_cannot_hold_is_refused(file: Path) -> None:
    """1 GB of KV cache under a limit of half of it: the child finds out, not the process that serves."""
    code = (
        "import resource, sys; from pathlib import Path; from slices.runtimes.open import open_runtime\n"
        "from slices.errors import RunFailed\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**29, 2**29))\n"
        f"try: open_runtime(Path({str(file.parent)!r}), Path({file.name!r}), 1, 2**21)\n"
        "except RunFailed as error: print('refused:', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused:")
    assert str(file) in done.stdout


def test_a_context_that_is_no_multiple_of_256_is_safe(file: Path) -> None:
    """llama.cpp would abort on the second 256 tokens of a context of 300, which it rounds up to 512."""
    code = (
        "from pathlib import Path; from slices.runtimes.open import open_runtime\n"
        "from slices.runtime import Sampling\n"
        f"runtime = open_runtime(Path({str(file.parent)!r}), Path({file.name!r}), 1, 300)\n"
        "print(len(list(runtime.generate('xq' * 200, Sampling(max_tokens=2)))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) != (0, ""), done.stderr
    assert done.returncode == 0, done.stderr[:500]


def test_a_child_that_hangs_is_ended(sleeper: str, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(RunFailed, match="took longer than 3 s and was ended"):
        run_child(sleeper, [str(tmp_path / "pid")], seconds=3)
    assert time.monotonic() - started < 20
    assert not _runs(int((tmp_path / "pid").read_text()))


def test_a_child_ends_with_its_parent(sleeper: str, tmp_path: Path) -> None:
    run = "from slices.files.child_process import run_child"
    code = f"{run}; run_child({sleeper!r}, [{str(tmp_path / 'pid')!r}])"
    parent = subprocess.Popen([sys.executable, "-c", code])
    child = _awaited(tmp_path / "pid")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def test_a_child_says_why_it_failed_and_what_it_does() -> None:
    lines: list[Any] = []
    with pytest.raises(RunFailed, match="No module named"):
        run_child("tests.nothing", [])
    run_child("json.tool", ["--help"], on_line=lines.append)
    assert lines[0].startswith("usage:")


def _awaited(path: Path) -> int:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return int(path.read_text())


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
