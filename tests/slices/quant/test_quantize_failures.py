"""Quantizing that fails, fills the disk or is killed ends in a sentence and nothing on disk."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from slices.errors import RunFailed, SliceError
from slices.export import export, write_gguf
from slices.quant.quantize import quantize
from slices.quant.quantizer import make_params, verify_tokens
from slices.quant.recipe import make_recipe
from tests.paths import ROOT
from tests.slices.gguf_fixtures import SLIDING, visible_and_hidden, write_gemma3, write_manifest
from tests.slices.quant_fixtures import RUN, pico_slice, run_python, start, write_stub

__all__ = ["pico_slice"]  # a fixture


def test_refusal_by_llama_cpp_is_reported_and_leaves_nothing(pico: Path, tmp_path: Path) -> None:
    small = quantize(pico, "Q8_0", tmp_path / "small.gguf").path
    before = visible_and_hidden(pico)
    with pytest.raises(RunFailed, match="requantizing from type q8_0 is disabled"):
        quantize(pico, "Q2_K", exported=small)
    assert visible_and_hidden(pico) == before


@pytest.mark.parametrize("command", ["plan", "tokens", "quantize", "verify"])
def test_abort_is_reported_and_leaves_nothing(
    pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    before = visible_and_hidden(pico)
    script = "echo 'GGML_ASSERT(n > 0) failed' >&2; kill -ABRT $$"
    monkeypatch.setattr(sys, "executable", str(write_stub(tmp_path / "stub", command, script)))
    with pytest.raises(RunFailed, match=r"SIGABRT: GGML_ASSERT\(n > 0\) failed"):
        quantize(pico, "Q8_0")
    assert visible_and_hidden(pico) == before


@pytest.mark.parametrize("command", ["plan", "tokens", "quantize", "verify"])
def test_errors_name_no_temporary_file(
    pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The child is given temporary files of no name; what it says of them names the slice or the result."""
    script = "printf '%s: it is damaged' \"$4\" >&2; exit 1"
    monkeypatch.setattr(sys, "executable", str(write_stub(tmp_path / "stub", command, script)))
    with pytest.raises(RunFailed) as raised:
        quantize(pico, "Q8_0")
    assert "/proc/" not in str(raised.value)
    assert str(pico if command in ("plan", "tokens") else pico / "pico-Q8_0.gguf") in str(raised.value)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("echo next; echo token_embd.weight Q8_0", "did not say the type of every tensor"),
        ("echo token_embd.weight Q8_0", "a line that means nothing: 'token_embd.weight Q8_0'"),
        ("echo next; echo Q8_0", "a line that means nothing: 'Q8_0'"),
        ("echo next; echo next", "expected 1 plans of types, found 2"),
        ("true", "expected 1 plans of types, found 0"),
    ],
)
def test_a_plan_that_is_not_understood_is_no_plan(
    said: str, message: str, pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Types are read off llama.cpp's log: another wording must not become a wrong size."""
    stub = write_stub(tmp_path / "stub", "plan", f"{said}; exit 0")
    monkeypatch.setattr(sys, "executable", str(stub))
    with pytest.raises(RunFailed, match=message):
        quantize(pico, "Q8_0")


def test_other_tokens_are_noticed(pico: Path, tmp_path: Path) -> None:
    """A file that tokenizes text otherwise than the slice would be measured and served as something else."""
    exported = export(pico, tmp_path / "export.gguf")
    raw = exported.read_bytes()
    assert raw.count(b"add_space_prefix\x07\x00\x00\x00\x00") == 1
    exported.write_bytes(raw.replace(b"add_space_prefix\x07\0\0\0\0", b"add_space_prefix\x07\0\0\0\1"))
    with pytest.raises(RunFailed, match="tokenizes text otherwise"):
        quantize(pico, "BF16", exported=exported)
    assert not list(pico.glob("*.gguf"))
    with pytest.raises(RunFailed, match="tokenizes text otherwise"):
        verify_tokens(exported, pico)


def test_tokens_are_compared_before_there_are_weights(pico: Path, tmp_path: Path) -> None:
    header = tmp_path / "header.gguf"
    write_gguf(pico, header, "pico", data=False)
    verify_tokens(header, pico)
    said = json.loads((pico / "tokenizer.json").read_text(encoding="utf-8"))
    said["model"]["merges"].clear()
    (pico / "tokenizer.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(RunFailed, match="tokenizes text otherwise"):
        verify_tokens(header, pico)


def test_a_disk_that_is_too_small_is_refused_with_figures(
    pico: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = visible_and_hidden(pico)
    free = shutil._ntuple_diskusage(10**7, 10**7 - 2_000_000, 2_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    expected = (
        r"needs 2,\d{3},\d{3} bytes \(1,\d{3},\d{3} for the bf16 export on the way, "
        r"\d{3},\d{3} for the result\), but only 2,000,000 are free"
    )
    with pytest.raises(SliceError, match=expected):
        quantize(pico, "Q8_0")
    assert visible_and_hidden(pico) == before
    quantize(pico, "BF16")  # needs no export on the way


LIMITED = """
import resource, sys
from pathlib import Path
from slices.errors import SliceError
from slices.quant.quantize import quantize
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    quantize(Path(sys.argv[1]), "Q8_0", exported=Path(sys.argv[2]) if sys.argv[2] else None)
except SliceError as error:
    print(error)
"""


@pytest.mark.parametrize("begun", [False, True], ids=["export", "quantizer"])
def test_a_disk_that_fills_amid_the_work_is_reported_and_nothing_is_left(
    pico: Path, tmp_path: Path, begun: bool
) -> None:
    """A limit on files' sizes stands for the full disk: first our own writing fails, then llama.cpp's."""
    before = visible_and_hidden(pico)
    exported = str(export(pico, tmp_path / "export.gguf")) if begun else ""
    done = run_python(LIMITED, str(pico), exported, "500000")
    assert re.fullmatch(r".*/pico-Q8_0.gguf could not be written: File too large; .*\n", done.stdout), done
    assert visible_and_hidden(pico) == before


def test_no_room_on_a_real_disk(pico: Path, tmp_path: Path) -> None:
    """A file system of 3 MB, of which another program takes the free room away amid the export."""
    code = (
        "import shutil; real = shutil.disk_usage\n"
        "shutil.disk_usage = lambda path: real('/')\n"  # as if there were room when it was asked for
        f"{RUN}from slices.errors import SliceError\n"
        f"try: quantize(Path({str(pico)!r}), 'Q8_0', Path('small/out/x.gguf'))\n"
        "except SliceError as error: print(error)\n"
        "print(list(Path('small/out').iterdir()))"
    )
    (tmp_path / "small").mkdir()
    script = 'mount -t tmpfs -o size=1000k none small && exec "$0" -c "$1"'
    command = ["unshare", "-rm", "sh", "-c", script, sys.executable, code]
    root = str(ROOT)
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("this system lets no one mount a small file system")
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.stdout.startswith("small/out/x.gguf could not be written: No space left on device"), done
    assert done.stdout.endswith("\n[]\n")


@pytest.mark.parametrize("command", ["plan", "tokens", "quantize", "verify"])
def test_killed_run_leaves_nothing(pico: Path, tmp_path: Path, command: str) -> None:
    """Killed outright while the quantizer's process works: neither export nor result may stay."""
    before = visible_and_hidden(pico)
    stub = write_stub(tmp_path / "sleeper", command, f"touch {tmp_path / 'here'}; exec sleep 20")
    with start(pico, "Q8_0", executable=str(stub)) as run:
        deadline = time.monotonic() + 60
        while not (tmp_path / "here").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        run.kill()
    assert (tmp_path / "here").exists()
    assert visible_and_hidden(pico) == before
    quantize(pico, "Q8_0")
    assert visible_and_hidden(pico) == before | {"pico-Q8_0.gguf"}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ten_kills_leave_no_file_that_passes_for_one(tmp_path: Path) -> None:
    """At random moments of a run of some 10 s. A kill after the last moment finds the finished file."""
    folder = write_gemma3(tmp_path / "pico", [SLIDING] * 4, hidden_size=1024, intermediate_size=4096)
    write_manifest(folder, "pico")
    before, moments = visible_and_hidden(folder), random.Random(5)
    began = time.monotonic()
    assert start(folder, "Q4_K_M").wait() == 0
    whole, duration = quantize(folder, "Q4_K_M", force=True), time.monotonic() - began
    for _ in range(10):
        whole.path.unlink(missing_ok=True)
        write_manifest(folder, "pico")
        with start(folder, "Q4_K_M") as run:
            time.sleep(moments.uniform(0, duration / 2))
            run.kill()
        left = visible_and_hidden(folder) - before
        assert left <= {whole.path.name}
        assert quantize(folder, "Q4_K_M", tmp_path / "next.gguf", force=True).sha256 == whole.sha256
        assert not left or hashlib.sha256(whole.path.read_bytes()).hexdigest() == whole.sha256
    assert quantize(folder, "Q4_K_M", force=True).sha256 == whole.sha256
    assert visible_and_hidden(folder) == before | {whole.path.name}


def test_child_ends_with_its_parent(tmp_path: Path) -> None:
    """A killed run must not leave a quantizer at work. Reading a pipe, this one would wait for ever."""
    os.mkfifo(tmp_path / "endless")
    params = make_params(tmp_path / "endless", tmp_path / "out", make_recipe("Q8_0"))
    command = [sys.executable, "-m", "slices.quant.child", "quantize", json.dumps(asdict(params))]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1.5)
        assert child.stdin
        child.stdin.close()
        assert child.wait(20) in (1, -signal.SIGABRT)
