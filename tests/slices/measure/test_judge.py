"""A slice's file against its rival, on picos: from the checkpoint to the verdict in slice.json."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from mom.workflows.compare import dominated_by
from slices import manifest
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.measure import rival
from slices.measure.compare_mode import CompareMode
from slices.measure.dominated import verdict_sentence
from slices.measure.judge import judge
from slices.measure.plain_sizes import PlainType, plain_sizes
from slices.measure.rival import RivalText, cut_rival_text
from slices.quant.quantize import quantize
from tests.slices.gguf_fixtures import SLIDING, write_gemma3
from tests.slices.heal_fixtures import sentences


def text(verdict_documents: int = 10) -> RivalText:
    documents = sentences(40, 20).documents
    return cut_rival_text((), documents[:10], documents[10 : 10 + verdict_documents])


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return write_gemma3(tmp_path / "parent", [SLIDING] * 2)


def slice_of(parent: Path, target: Path, layers: str = "all") -> Path:
    cut(SliceRequest(domain="law", layers=layers, model=str(parent), output=target))
    return target


def spoil(folder: Path) -> Path:
    """Make a slice sure of everything, and wrong."""
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"].fill_(60.0)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_slice_that_is_its_parent_is_level_and_one_that_is_spoilt_is_dominated(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    q8 = PlainType("Q8_0", "llama.cpp")  # of random weights another may be better by chance
    [size] = [each for each in plain_sizes(parent, with_imatrix=False) if each.kind == q8]
    monkeypatch.setattr(rival, "plain_sizes", lambda parent, with_imatrix: [size])
    same, spoilt = slice_of(parent, tmp_path / "same"), spoil(slice_of(parent, tmp_path / "spoilt"))
    used = text()
    for folder, expected in ((same, "level"), (spoilt, "dominated")):
        file = quantize(folder, "Q8_0").path.name
        found = judge(folder, file, used, threads=1)
        assert found.verdict == expected, verdict_sentence(found)
        assert found.n == used.verdict.documents
        assert (found.data, found.selection) == (used.verdict.sha256, used.selection.sha256)
        made = manifest.read(folder)
        assert made.verdicts == [found]
        assert ("level with" in dominated_by(made.verdicts[0])) == (expected == "level")
    assert judge(spoilt, "bf16", used, threads=1).verdict == "dominated"
    assert len(manifest.read(spoilt).verdicts) == 2


def test_gibberish_without_a_rival_is_alone_and_never_better(parent: Path, tmp_path: Path) -> None:
    """A slice of few layers that predicts nothing is smaller than every plain quant: it claims nothing."""
    folder = spoil(slice_of(parent, tmp_path / "slice", layers="drop:1"))
    file = quantize(folder, "Q2_K").path
    least = min(each.bytes for each in plain_sizes(parent, with_imatrix=False))
    assert file.stat().st_size < least
    found = judge(folder, file.name, text(), threads=1)
    assert (found.verdict, found.rival) == ("alone", None)
    assert "better" not in verdict_sentence(found)
    [bits] = manifest.read(folder).measurements
    assert (bits.variant, bits.metric, bits.data) == (file.name, "bits_per_byte", text().verdict.sha256)
    assert bits.value > 20 and bits.stderr > 0, "the figure says what the verdict does not"


def test_what_cannot_be_measured_is_not_known_and_no_error(parent: Path, tmp_path: Path) -> None:
    folder = slice_of(parent, tmp_path / "slice")
    few = judge(folder, "bf16", text(5), threads=1)
    assert few.verdict == "unknown"
    assert "5 documents; a verdict needs at least 8" in few.reason
    assert manifest.read(folder).measurements, "its bits are known"
    assert judge(folder, "bf16", text(), CompareMode.NEVER).verdict == "unknown"
    made = manifest.read(folder)
    (parent / "config.json").unlink()
    manifest.write(folder, made)
    assert "no model" in judge(folder, "bf16", text()).reason
    assert json.loads((folder / "slice.json").read_text())["verdicts"][0]["verdict"] == "unknown"
