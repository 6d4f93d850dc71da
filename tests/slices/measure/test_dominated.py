"""Slices against plain quants: the verdict from planted figures, and the whole road on picos."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from mom.workflows.compare import dominated_by
from slices import manifest
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.errors import BadConfig
from slices.home import home
from slices.measure import plain
from slices.measure.compare_mode import CompareMode
from slices.measure.dominated import unknown_verdict, verdict, verdict_sentence
from slices.measure.heldout import Heldout, cut_heldout
from slices.measure.judge import judge
from slices.measure.plain import PlainQuant
from slices.quant.quantize import quantize
from tests.slices.gguf_fixtures import SLIDING, write_gemma3
from tests.slices.heal_fixtures import sentences

DOCUMENTS = list(sentences(6, 20).documents)
SIZES = np.array([100.0, 200.0, 300.0])
BITS = np.array([80.0, 170.0, 240.0])


def text() -> Heldout:
    return cut_heldout(DOCUMENTS)


def rival(bits: np.ndarray, type: str = "Q3_K_M", nbytes: int = 90) -> PlainQuant:
    return PlainQuant(type=type, embedding_type="llama.cpp", bytes=nbytes, bits=tuple(bits.tolist()))


@pytest.mark.parametrize(("shift", "expected"), [(0.1, "better"), (-0.1, "dominated"), (0.0, "level")])
def test_the_verdict_is_of_paired_differences(shift: float, expected: str) -> None:
    """Noise between documents is large; what the two differ by is the same everywhere, so it is seen."""
    noise = np.array([0.4, -0.3, 0.1]) * (0.001 if shift else 1)
    found = verdict("bf16", "law", BITS, SIZES, [rival(BITS + (shift + noise) * SIZES)], text())
    assert found.verdict == expected
    assert found.compared == 1
    assert (found.difference is not None) and (found.difference < 0) == (expected == "better" or not shift)
    assert ("DOMINATED" in verdict_sentence(found)) == (expected == "dominated")


def test_the_best_rival_counts() -> None:
    worse, better = rival(BITS + 30, "Q2_K"), rival(BITS - 30, "Q4_K_M")
    found = verdict("bf16", "law", BITS, SIZES, [worse, better], text())
    assert (found.verdict, found.rival, found.compared) == ("dominated", "Q4_K_M", 2)


def test_sentences_say_what_is_not_known_and_what_has_no_rival() -> None:
    assert "not known: no text" in verdict_sentence(unknown_verdict("bf16", "law", "no text"))
    assert "dominated by nothing: no plain quant of the parent is as small" in verdict_sentence(
        verdict("bf16", "law", BITS, SIZES, [], text())
    )


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return write_gemma3(tmp_path / "parent", [SLIDING] * 2)


def slice_of(parent: Path, target: Path) -> Path:
    cut(SliceRequest(domain="law", layers="all", model=str(parent), output=target))
    return target


def test_a_slice_that_is_its_parent_is_level_and_one_that_is_spoilt_is_dominated(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        plain, "EMBEDDING_TYPES", plain.EMBEDDING_TYPES[:1]
    )  # of random weights any may be better by chance
    same, spoilt = slice_of(parent, tmp_path / "same"), slice_of(parent, tmp_path / "spoilt")
    tensors = load_file(spoilt / "model.safetensors")
    tensors["model.norm.weight"].fill_(60.0)  # sure of everything, and wrong
    save_file(tensors, spoilt / "model.safetensors", metadata={"format": "pt"})
    for folder, expected in ((same, "level"), (spoilt, "dominated")):
        file = quantize(folder, "Q8_0").path.name
        found = judge(folder, file, DOCUMENTS, threads=1)
        assert found.verdict == expected, verdict_sentence(found)
        made = manifest.read(folder)
        assert made.verdicts == [found]
        assert ("level with" in dominated_by(made.verdicts[0])) == (expected == "level")
    assert judge(spoilt, "bf16", DOCUMENTS, threads=1).verdict == "dominated"
    assert len(manifest.read(spoilt).verdicts) == 2


def test_plain_quants_are_measured_once(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plain.plain_quants(parent, text(), 10**9, threads=1)
    assert [each.bytes for each in first] == sorted(each.bytes for each in first)
    assert [each.label for each in first] == ["Q8_0 with Q4_K embeddings", "Q8_0", "BF16"]
    monkeypatch.setattr(plain, "quantize", None)
    monkeypatch.setattr(plain, "predict_sizes", None)
    assert plain.plain_quants(parent, text(), 10**9, threads=1) == first
    assert not list((home() / "plain").glob(".scratch*"))


def test_a_file_smaller_than_any_plain_quant_is_not_dominated(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = slice_of(parent, tmp_path / "slice")
    file = quantize(folder, "Q2_K").path
    monkeypatch.setattr(plain, "plain_sizes", lambda parent: {("Q2_K", "llama.cpp"): file.stat().st_size + 1})
    found = judge(folder, file.name, DOCUMENTS, threads=1)
    assert (found.verdict, found.rival) == ("better", None)
    [bits] = manifest.read(folder).measurements
    assert (bits.variant, bits.metric, bits.data) == (file.name, "bits_per_byte", found.data)
    assert bits.value > 0 and bits.stderr > 0


def test_damaged_figures_are_named(parent: Path) -> None:
    plain.plain_quants(parent, text(), 10**9, threads=1)
    (file,) = [path for path in (home() / "plain").glob("*.json") if "sizes" not in path.name]
    for damage in ("{", '{"text": "x", "quants": []}', '{"quants": [{"type": 1}]}'):
        file.write_text(damage)
        with pytest.raises(BadConfig, match="delete the file"):
            plain.plain_quants(parent, text(), 10**9, threads=1)


def test_what_cannot_be_measured_is_not_known_and_no_error(parent: Path, tmp_path: Path) -> None:
    folder = slice_of(parent, tmp_path / "slice")
    few = judge(folder, "bf16", DOCUMENTS[:1], threads=1)
    assert few.verdict == "unknown"
    assert "at least two documents" in few.reason
    assert judge(folder, "bf16", DOCUMENTS, CompareMode.NEVER).verdict == "unknown"
    made = manifest.read(folder)
    manifest.write(
        folder, made.model_copy(update={"parent": made.parent.model_copy(update={"bytes": 10**10})})
    )
    assert "--compare always" in judge(folder, "bf16", DOCUMENTS).reason
    (parent / "config.json").unlink()
    manifest.write(folder, made)
    assert "no model" in judge(folder, "bf16", DOCUMENTS).reason
    assert json.loads((folder / "slice.json").read_text())["verdicts"][0]["verdict"] == "unknown"
