"""A slice is exactly its parent with the other layers bypassed, and the right text reaches the right row."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from slices import manifest
from slices.cut.pipeline import cut, plan_cut
from slices.cut.request import SliceRequest
from slices.errors import BadCheckpoint, Exists, InvalidCut, NotFound, SliceError
from tests.picos import bypassed, cut_exactly, difference, load, logits, write_shape

SWA = [i for i in range(42) if i % 6 != 5]


def assert_equals_bypass(parent: Path, made: Path, kept: list[int]) -> None:
    model = load(parent)
    with bypassed(model, kept):
        expected = logits(model)
    assert difference(load(made), expected) == 0.0


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        ("swa", SWA),
        ("all", list(range(42))),
        ("0-23", list(range(24))),
        ("drop:0,7,24,30,41", [i for i in range(42) if i not in (0, 7, 24, 30, 41)]),
        ("22,23,40,41", [22, 23, 40, 41]),
        ("0-22,24", [*range(23), 24]),
        ("full", [5, 11, 17, 23, 29, 35, 41]),
    ],
)
def test_gemma4_slice_is_the_bypassed_parent(
    pico_e4b: Path, tmp_path: Path, spec: str, kept: list[int]
) -> None:
    made = cut_exactly(
        SliceRequest(domain="biochem", layers=spec, model=str(pico_e4b), output=tmp_path / "out")
    )
    assert made.layers == kept
    assert_equals_bypass(pico_e4b, tmp_path / "out", kept)


@pytest.mark.parametrize(("spec", "kept"), [("swa", [0, 1, 2, 3, 4]), ("drop:2", [0, 1, 3, 4, 5])])
def test_gemma3_slice_is_the_bypassed_parent(
    pico_gemma3: Path, tmp_path: Path, spec: str, kept: list[int]
) -> None:
    made = cut_exactly(
        SliceRequest(domain="biochem", layers=spec, model=str(pico_gemma3), output=tmp_path / "out")
    )
    assert made.layers == kept
    assert_equals_bypass(pico_gemma3, tmp_path / "out", kept)


def test_dropped_donor_is_refused_with_its_sharers(pico_e4b: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidCut, match="layers 24, 25 share the K/V of layer 22"):
        cut(SliceRequest(domain="biochem", layers="0-21,23-25", model=str(pico_e4b), output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_dry_run_knows_the_bytes(pico_e4b: Path, tmp_path: Path) -> None:
    request = SliceRequest(
        domain="biochem",
        layers="swa",
        model=str(pico_e4b),
        vocab="450",
        corpus=(_text(tmp_path),),
        output=tmp_path / "out",
    )
    _, plan, _ = plan_cut(request)
    made = cut(request)
    assert plan.nbytes == made.bytes == (tmp_path / "out" / "model.safetensors").stat().st_size


def _text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("The quick brown dog jumps over the lazy fox, as the dogs do.\n" * 3)
    return path


def test_vocabulary_cut_keeps_tokens_and_logits(pico_gemma3: Path, tmp_path: Path) -> None:
    """Kept text has the same tokens by name, and each token the same logits among the kept rows."""
    request = SliceRequest(
        domain="law",
        layers="all",
        model=str(pico_gemma3),
        vocab="domain",
        corpus=(_text(tmp_path),),
        output=tmp_path / "out",
    )
    made = cut_exactly(request)
    before = Tokenizer.from_file(str(pico_gemma3 / "tokenizer.json"))
    after = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert 300 < made.vocabulary == after.get_vocab_size() < before.get_vocab_size()
    text = "The lazy dog jumps over the fox"
    old, new = before.encode(text), after.encode(text)
    assert old.tokens == new.tokens
    assert old.ids != new.ids
    kept = [before.token_to_id(after.id_to_token(i) or "") for i in range(made.vocabulary)]
    with torch.inference_mode():
        parent = load(pico_gemma3)(torch.tensor([old.ids])).logits[0][:, kept]
        slice_ = load(tmp_path / "out")(torch.tensor([new.ids])).logits[0]
    assert (parent - slice_).abs().max().item() < 1e-6  # a narrower product rounds its edge differently
    assert all(after.token_to_id(f"<0x{byte:02X}>") is not None for byte in range(256))


def test_gemma4_vocabulary_cut_reaches_every_file(tmp_path: Path) -> None:
    """Both tables lose the same rows, and every id in every file follows; the template is carried."""
    parent = write_shape(tmp_path / "parent", "e4b")
    (parent / "chat_template.jinja").write_text("{{ messages }}")
    _merge(parent / "config.json", {"eos_token_id": [1, 5], "pad_token_id": 0, "bos_token_id": 2})
    _merge(parent / "generation_config.json", {"eos_token_id": [1, 5, 500], "bos_token_id": 2, "top_k": 64})
    request = SliceRequest(
        domain="law",
        layers="all",
        model=str(parent),
        vocab="domain",
        corpus=(_text(tmp_path),),
        output=tmp_path / "out",
    )
    made = cut_exactly(request)
    before = Tokenizer.from_file(str(parent / "tokenizer.json"))
    after = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    config, generation = (
        json.loads((tmp_path / "out" / name).read_text())
        for name in ("config.json", "generation_config.json")
    )
    assert config["vocab_size"] == config["vocab_size_per_layer_input"] == made.vocabulary
    new = after.token_to_id(before.id_to_token(500) or "")
    assert new not in (500, None)
    assert config["eos_token_id"] == [1, 5]
    assert generation["eos_token_id"] == [1, 5, new]
    assert (generation["bos_token_id"], generation["top_k"]) == (2, 64)
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"
    text = "The lazy dog jumps over the fox"
    kept = [before.token_to_id(after.id_to_token(i) or "") for i in range(made.vocabulary)]
    with torch.inference_mode():
        wide = load(parent)(torch.tensor([before.encode(text).ids])).logits[0][:, kept]
        narrow = load(tmp_path / "out")(torch.tensor([after.encode(text).ids])).logits[0]
    assert (wide - narrow).abs().max().item() < 1e-4  # a narrower product rounds its edge differently


def _merge(file: Path, more: dict[str, object]) -> None:
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(known | more))


def test_outer_token_ids_win(tmp_path: Path) -> None:
    """A multimodal config's own ids are what the model stops on; the text part's may be older."""
    parent = write_shape(tmp_path / "parent", "31b")
    text = json.loads((parent / "config.json").read_text())
    outer = {"model_type": "gemma4", "text_config": text, "eos_token_id": [1, 106], "pad_token_id": 3}
    (parent / "config.json").write_text(json.dumps(outer))
    cut_exactly(SliceRequest(domain="law", layers="all", model=str(parent), output=tmp_path / "out"))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["eos_token_id"], config["pad_token_id"], config["bos_token_id"]) == ([1, 106], 3, 2)


def test_manifest_is_complete(pico_gemma3: Path, mom_home: Path, tmp_path: Path) -> None:
    made = cut_exactly(
        SliceRequest(
            domain="law", layers="0-3", model=str(pico_gemma3), vocab="440", corpus=(_text(tmp_path),)
        )
    )
    folder = mom_home / "slices" / "law"
    assert manifest.read(folder) == made
    assert manifest.find("law") == folder
    assert made.vocabulary == 440
    assert made.calibration.source == "files"
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 440


def test_existing_output_is_refused_unless_forced(pico_gemma3: Path, tmp_path: Path) -> None:
    request = SliceRequest(domain="law", layers="0-3", model=str(pico_gemma3), output=tmp_path / "out")
    cut_exactly(request)
    before = (tmp_path / "out" / "slice.json").read_bytes()
    with pytest.raises(Exists, match="already exists"):
        cut(request)
    assert (tmp_path / "out" / "slice.json").read_bytes() == before
    cut_exactly(
        SliceRequest(domain="law", layers="0-2", model=str(pico_gemma3), output=tmp_path / "out", force=True)
    )
    assert manifest.read(tmp_path / "out").layers == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"layers": "99"}, InvalidCut, "outside the parent's layers 0-5"),
        ({"layers": "3,3"}, InvalidCut, "named twice"),
        ({"layers": "first"}, InvalidCut, "no layer"),
        ({"layers": "drop:0-5"}, InvalidCut, "keeps no layer"),
        ({"layers": "auto:99"}, InvalidCut, "expected auto, or auto:N with N from 1 to"),
        ({"layers": "auto:x"}, InvalidCut, "expected auto, or auto:N"),
        ({"domain": "astrology"}, NotFound, "known: biochem"),
        ({"domain": "../biochem"}, SliceError, "not usable"),
        ({"model": "no-such-model"}, NotFound, "no model"),
        ({"vocab": "9999999"}, InvalidCut, "only"),
        ({"vocab": "10"}, InvalidCut, "must stay"),
        ({"vocab": "some"}, InvalidCut, "number of rows"),
        ({"name": "../out"}, SliceError, "not usable"),
    ],
)
def test_bad_requests_write_nothing(
    pico_gemma3: Path,
    tmp_path: Path,
    mom_home: Path,
    changes: dict[str, str],
    error: type[Exception],
    match: str,
) -> None:
    options: dict[str, Any] = {
        "domain": "law",
        "layers": "all",
        "model": str(pico_gemma3),
        "corpus": (_text(tmp_path),),
    } | changes
    with pytest.raises(error, match=match):
        cut(SliceRequest(**options))
    assert not mom_home.exists() or not list(mom_home.rglob("*"))


def test_truncated_weights_are_named(pico_gemma3: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in pico_gemma3.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(BadCheckpoint, match=r"model\.safetensors.*cut short"):
        cut(SliceRequest(domain="law", layers="all", model=str(broken), output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
