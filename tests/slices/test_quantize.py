"""Quantizing ends in a file that runs and is recorded, or in a sentence and nothing on disk."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slices import manifest
from slices import quantize as module
from slices.errors import BadConfig, Exists, NotFound, RunFailed, Unsupported
from slices.gguf_header import read_gguf_header
from slices.quantize import TYPES, quantize
from tests.slices.gguf_fixtures import SLIDING, visible_and_hidden, write_gemma3, write_manifest


@pytest.fixture
def pico(tmp_path: Path) -> Path:
    folder = write_gemma3(tmp_path / "pico", [SLIDING])
    write_manifest(folder, "pico")
    return folder


def stub(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have a shell script run in place of Python wherever a child is started."""
    path = folder.parent / "stub"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(path))


def test_every_type_runs_and_is_recorded(pico: Path) -> None:
    before, done = visible_and_hidden(pico), []
    for kind in TYPES:
        steps: list[tuple[int, int]] = []
        done.append(quantize(pico, kind, threads=1, progress=lambda i, n, s=steps: s.append((i, n))))
        count = len(read_gguf_header(done[-1].path).tensors)
        assert steps == ([] if kind == "BF16" else [(i + 1, count) for i in range(count)])
    assert [each.bits_per_weight for each in done] == sorted(each.bits_per_weight for each in done)
    assert [each.bytes for each in done] == sorted(each.bytes for each in done)
    assert done[-1].bits_per_weight == pytest.approx(16, abs=0.1)
    recorded = manifest.read(pico).quantized
    assert [(q.file, q.type, q.sha256) for q in recorded] == [(d.path.name, d.type, d.sha256) for d in done]
    assert visible_and_hidden(pico) == before | {f"pico-{kind}.gguf" for kind in TYPES}


def test_unknown_type_names_the_known_ones(pico: Path) -> None:
    with pytest.raises(Unsupported, match="'Q7_Z' is not supported; expected one of Q2_K, Q3_K_M, Q4_K_M"):
        quantize(pico, "Q7_Z")


def test_existing_file_is_refused_or_replaced_with_its_measurements(pico: Path) -> None:
    first = quantize(pico, "Q8_0")
    stale = manifest.Measurement(of=first.path.name, domain="d", metric="m", value=1, stderr=0)
    kept = manifest.Measurement(of="bf16", domain="d", metric="m", value=1, stderr=0)
    manifest.write(pico, manifest.read(pico).model_copy(update={"measurements": [stale, kept]}))
    with pytest.raises(Exists, match="--force"):
        quantize(pico, "Q8_0")
    assert quantize(pico, "Q8_0", force=True).sha256 == first.sha256
    found = manifest.read(pico)
    assert len(found.quantized) == 1
    assert found.measurements == [kept]


def test_plain_checkpoint_needs_an_output(pico: Path, tmp_path: Path) -> None:
    (pico / manifest.FILE).unlink()
    with pytest.raises(NotFound, match="-o"):
        quantize(pico, "Q8_0")
    done = quantize(pico, "Q8_0", tmp_path / "other" / "x.gguf")
    assert done.path.is_file()
    assert visible_and_hidden(done.path.parent) == {"x.gguf"}


def test_output_elsewhere_is_not_recorded(pico: Path, tmp_path: Path) -> None:
    quantize(pico, "Q8_0", tmp_path / "x.gguf")
    assert manifest.read(pico).quantized == []


def test_file_name_that_slice_json_cannot_hold_is_refused_first(pico: Path) -> None:
    write_manifest(pico, "n" * 60)
    with pytest.raises(BadConfig, match="not usable"):
        quantize(pico, "Q8_0")


def test_refusal_by_llama_cpp_is_told_and_leaves_nothing(pico: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = visible_and_hidden(pico)
    monkeypatch.setattr(module, "TYPES", {"Q8_0": 999})
    with pytest.raises(RunFailed, match="invalid output file type 999"):
        quantize(pico, "Q8_0")
    assert visible_and_hidden(pico) == before


def test_abort_is_told_and_leaves_nothing(pico: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = visible_and_hidden(pico)
    stub(pico, monkeypatch, "echo 'GGML_ASSERT(n > 0) failed' >&2; kill -ABRT $$")
    with pytest.raises(RunFailed, match=r"SIGABRT: GGML_ASSERT\(n > 0\) failed"):
        quantize(pico, "Q8_0")
    assert visible_and_hidden(pico) == before


def test_other_tokens_are_noticed(pico: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cuts text otherwise than the slice would be measured and served as something else."""
    whole = module.write_gguf

    def spoil(folder: Path, path: Path, name: str | None = None) -> None:
        whole(folder, path, name)
        raw = path.read_bytes()
        assert raw.count(b"add_space_prefix\x07\x00\x00\x00\x00") == 1
        path.write_bytes(
            raw.replace(b"add_space_prefix\x07\x00\x00\x00\x00", b"add_space_prefix\x07\x00\x00\x00\x01")
        )

    monkeypatch.setattr(module, "write_gguf", spoil)
    with pytest.raises(RunFailed, match="cuts text otherwise"):
        quantize(pico, "BF16")
    assert not list(pico.glob("*.gguf"))


def test_killed_run_is_swept_by_the_next(pico: Path, tmp_path: Path) -> None:
    before = visible_and_hidden(pico)
    stub_path = tmp_path / "sleeper"
    stub_path.write_text("#!/bin/sh\nexec sleep 20\n")
    stub_path.chmod(0o755)
    code = (
        "import sys; from pathlib import Path; from slices.quantize import quantize\n"
        f"sys.executable = {str(stub_path)!r}; quantize(Path({str(pico)!r}), 'Q8_0')"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        deadline = time.monotonic() + 20
        while not list(pico.glob(".*.partial-bf16-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        child.kill()
    assert visible_and_hidden(pico) > before
    quantize(pico, "Q8_0")
    assert visible_and_hidden(pico) == before | {"pico-Q8_0.gguf"}


def test_child_ends_with_its_parent(tmp_path: Path) -> None:
    """A killed run must not leave a quantizer at work. Reading a pipe, this one would wait for ever."""
    os.mkfifo(tmp_path / "endless")
    command = [sys.executable, "-m", "slices.quantize_child", "quantize", str(tmp_path / "endless")]
    with subprocess.Popen([*command, str(tmp_path / "out"), "7", "1"], stdin=subprocess.PIPE) as child:
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1.5)
        assert child.stdin
        child.stdin.close()
        assert child.wait(20) in (1, -signal.SIGABRT)
