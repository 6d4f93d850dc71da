"""Quantizing ends in a file that runs and is recorded; what cannot is refused before the work."""

import sys
from functools import partial
from pathlib import Path

import pytest

from slices import manifest
from slices.errors import BadConfig, Exists, NotFound, Unsupported
from slices.export import export
from slices.gguf.header import read_gguf_header
from slices.quant.quantize import quantize
from slices.quant.types import TYPES
from tests.slices.gguf_fixtures import visible_and_hidden, write_manifest
from tests.slices.quant_fixtures import pico_slice

__all__ = ["pico_slice"]  # a fixture
LIGHT = [name for name in TYPES if name != "IQ2_M"]  # llama.cpp prepares that one for 4 s


def _append(steps: list[tuple[int, int]], stage: str, done: int, total: int) -> None:
    steps.append((done, total))


def test_every_type_runs_and_is_recorded(pico: Path) -> None:
    before, done = visible_and_hidden(pico), []
    for kind in LIGHT:
        steps: list[tuple[int, int]] = []
        done.append(quantize(pico, kind, threads=1, progress=partial(_append, steps)))
        count = len(read_gguf_header(done[-1].path).tensors)
        assert steps == ([] if kind == "BF16" else [(i + 1, count) for i in range(count)])
        assert done[-1].bytes == done[-1].path.stat().st_size == done[-1].predicted.bytes
    assert [each.bits_per_weight for each in done] == sorted(each.bits_per_weight for each in done)
    assert [each.bytes for each in done] == sorted(each.bytes for each in done)
    assert done[-1].bits_per_weight == pytest.approx(16, abs=0.1)
    recorded = manifest.read(pico).quantized
    assert [(q.file, q.type, q.sha256) for q in recorded] == [(d.path.name, d.type, d.sha256) for d in done]
    assert visible_and_hidden(pico) == before | {f"pico-{kind}.gguf" for kind in LIGHT}


def test_unknown_type_names_the_known_ones(pico: Path) -> None:
    with pytest.raises(Unsupported, match="'Q7_Z' is not supported; expected one of IQ2_M, Q2_K, Q3_K_S"):
        quantize(pico, "Q7_Z")


def test_a_type_that_needs_an_imatrix_is_refused_before_any_work(
    pico: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere")  # no child could start
    with pytest.raises(Unsupported, match="IQ2_M needs an importance matrix: pass --imatrix domain"):
        quantize(pico, "IQ2_M")


def test_existing_file_is_refused_or_replaced_with_its_measurements(pico: Path) -> None:
    first = quantize(pico, "Q8_0")
    stale = manifest.Measurement(variant=first.path.name, domain="d", metric="m", value=1, stderr=0)
    kept = manifest.Measurement(variant="bf16", domain="d", metric="m", value=1, stderr=0)
    manifest.write(pico, manifest.read(pico).model_copy(update={"measurements": [stale, kept]}))
    with pytest.raises(Exists, match="--force"):
        quantize(pico, "Q8_0")
    assert quantize(pico, "Q8_0", force=True).sha256 == first.sha256
    found = manifest.read(pico)
    assert len(found.quantized) == 1
    assert found.measurements == [kept]


def test_a_file_that_was_named_but_not_recorded_is_replaced(pico: Path) -> None:
    """So a run leaves it that is killed in its last moment; a file that is not ours stays."""
    first = quantize(pico, "Q8_0")
    write_manifest(pico, "pico")
    assert quantize(pico, "Q8_0").sha256 == first.sha256
    assert [each.file for each in manifest.read(pico).quantized] == ["pico-Q8_0.gguf"]
    (pico / "pico-BF16.gguf").write_bytes(b"mine")
    with pytest.raises(Exists):
        quantize(pico, "BF16")
    assert (pico / "pico-BF16.gguf").read_bytes() == b"mine"


def test_begins_with_an_export_that_is_there(pico: Path, tmp_path: Path) -> None:
    """So that a ladder of types exports once. The export must be left as it is."""
    exported = export(pico, tmp_path / "export.gguf", name="pico")
    whole = exported.read_bytes()
    for kind in ("Q4_K_M", "BF16"):
        from_export = quantize(pico, kind, tmp_path / f"{kind}-1.gguf", exported=exported)
        assert from_export.sha256 == quantize(pico, kind, tmp_path / f"{kind}-2.gguf").sha256
    assert exported.read_bytes() == whole


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


def test_the_longest_name_of_a_slice_will_do(pico: Path) -> None:
    """Names of 53 to 64 letters once gave a file name that slice.json refused."""
    write_manifest(pico, "n" * 64)
    done = quantize(pico, "Q8_0")
    assert done.path.name == "n" * 64 + "-Q8_0.gguf"
    assert [each.file for each in manifest.read(pico).quantized] == [done.path.name]


def test_file_name_that_slice_json_cannot_hold_is_refused_first(pico: Path) -> None:
    before = visible_and_hidden(pico)
    for name in ("n" * 125 + ".gguf", "é.gguf", "-x.gguf"):
        with pytest.raises(BadConfig, match="not usable: expected 1 to 128"):
            quantize(pico, "Q8_0", pico / name)
    assert visible_and_hidden(pico) == before
