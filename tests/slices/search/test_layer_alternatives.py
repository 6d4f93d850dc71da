"""What dropping the full-attention layers costs, beside windowing them and dropping others."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mom.workflows.layer_alternatives import layer_alternatives, show_layer_alternatives
from mom.workflows.slice import slice_model
from slices import manifest
from slices.architecture.attention import RopeTheta
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.measure.bits_per_byte import score_text
from slices.measure.compare_mode import CompareMode
from slices.measure.heldout import cut_heldout
from slices.progress import no_progress
from slices.runtimes.open import open_runtime
from slices.search.layer_alternatives import DROPPED, OTHERS, SLIDING, measure_layer_alternatives
from slices.text.corpus import read_corpus
from tests.slices.heal_fixtures import TYPES, parent_gemma3, sentences


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parent_gemma3(tmp_path_factory.mktemp("alternatives") / "parent")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "text.jsonl"
    documents = sentences(120, seed=3).documents
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return file


def test_the_alternatives_are_measured_on_selection_text(
    parent: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = SliceRequest(
        domain="law",
        layers="swa",
        model=str(parent),
        vocab="500",
        corpus=(corpus,),
        output=tmp_path / "swa",
    )
    cut(request)
    figures = layer_alternatives(request, CompareMode.AUTO, no_progress)
    assert figures is not None and figures["refused"] == {} and figures["reason"] is None
    found = {each["name"]: each for each in figures["found"]}
    assert set(found) == {DROPPED, SLIDING, OTHERS}
    sliding_layers = [index for index, kind in enumerate(TYPES) if kind == "sliding_attention"]
    assert list(found[DROPPED]["layers"]) == sliding_layers == manifest.read(tmp_path / "swa").layers
    assert len(found[OTHERS]["layers"]) == len(sliding_layers)
    assert found[OTHERS]["bytes"] == found[DROPPED]["bytes"] < found[SLIDING]["bytes"]
    assert (len(found[SLIDING]["layers"]), found[SLIDING]["attention"]) == (len(TYPES), "sliding")
    text = cut_heldout(read_corpus([corpus]).selection().documents, 8_000)
    runtime = open_runtime(tmp_path / "swa", None, 1)
    alone = score_text("swa", runtime, text).bits_per_byte
    runtime.close()
    assert found[DROPPED]["bits_per_byte"]["value"] == pytest.approx(alone.value, rel=1e-5)
    bits = [each["bits_per_byte"]["value"] for each in figures["found"]]
    assert bits == sorted(bits)
    show_layer_alternatives(figures)
    assert f"fewest bits: {figures['found'][0]['name']}" in capsys.readouterr().out


def test_windows_that_the_text_never_leaves_cost_nothing(parent: Path, corpus: Path, tmp_path: Path) -> None:
    """With the global theta, text of at most a window is the parent's: a KL of 0."""
    request = SliceRequest(
        domain="law", layers="swa", model=str(parent), corpus=(corpus,), output=tmp_path / "swa"
    )
    cut(request)
    short = cut_heldout(read_corpus([corpus]).selection().documents, 2_000, size=16)
    theta = replace(request, rope_theta=RopeTheta.GLOBAL)
    found, _ = measure_layer_alternatives(theta, parent, short, 1)
    [sliding] = [each for each in found if each.name == SLIDING]
    assert sliding.kl.value == pytest.approx(0, abs=1e-6)
    assert sliding.bits_over_parent.value == pytest.approx(0, abs=1e-6)


def test_other_slices_have_no_alternatives(parent: Path, corpus: Path, tmp_path: Path) -> None:
    one, swa = (
        SliceRequest(
            domain="law", layers=layers, model=str(parent), corpus=(corpus,), output=tmp_path / layers[:3]
        )
        for layers in ("drop:1", "swa")
    )
    assert layer_alternatives(one, CompareMode.ALWAYS, no_progress) is None
    assert slice_model(swa, CompareMode.NEVER)["alternatives"] is None
