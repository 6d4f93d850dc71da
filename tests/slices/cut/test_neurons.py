"""Cutting neurons: the ones that matter on the text stay, in order, and the rest is as if never there."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from slices.architecture.anatomy import Anatomy, read_anatomy
from slices.checkpoint import Checkpoint, open_checkpoint
from slices.cut.neurons import best_neurons, random_neurons
from slices.cut.pipeline import cut
from slices.cut.request import FfnRank, SliceRequest
from slices.errors import BadCheckpoint, NotFound
from slices.quant.calibration import token_batches
from slices.scores import neurons as scores
from slices.scores.neurons import neuron_scores
from slices.text.corpus import Corpus
from tests.picos import IDS, add_dead_kv, cut_exactly, load, write_multimodal, write_shape

TEXT = Corpus("files", ("The quick brown dog jumps over the lazy fox.", "def add(a, b): return a + b"))


def opened(folder: Path) -> tuple[Checkpoint, Anatomy]:
    checkpoint = open_checkpoint(folder)
    return checkpoint, read_anatomy(checkpoint.config)


def corpus(tmp_path: Path) -> tuple[Path]:
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXT.documents))
    return (file,)


@pytest.mark.parametrize("shape", ["e2b", "26b", "gemma3"])
def test_slice_is_the_parent_with_the_other_neurons_silenced(shape: str, tmp_path: Path) -> None:
    """To 1e-4 of logits that reach 30: a sum over fewer neurons is rounded in another order."""
    parent = write_shape(tmp_path / "parent", shape)
    made = cut_exactly(
        SliceRequest(
            domain="biochem",
            layers="all",
            model=str(parent),
            ffn="32",
            corpus=corpus(tmp_path),
            output=tmp_path / "out",
        )
    )
    checkpoint, anatomy = opened(parent)
    kept = best_neurons(anatomy, made.layers, 32, neuron_scores(checkpoint, anatomy, _calibration(tmp_path)))
    model = load(parent)
    with torch.no_grad():
        for index, layer in enumerate(model.model.layers):
            silenced = np.setdiff1d(np.arange(anatomy.layers[index].ffn), kept[index])
            layer.mlp.down_proj.weight[:, silenced] = 0
    with torch.inference_mode():
        ids = torch.tensor([IDS])
        assert torch.allclose(load(tmp_path / "out")(ids).logits, model(ids).logits, rtol=0, atol=1e-4)
    assert (made.recipe["ffn"], made.recipe["ffn_rank"]) == ("32", "scores")
    assert made.calibration.source == "files"


def _calibration(tmp_path: Path) -> Corpus:
    from slices.text.corpus import read_corpus

    return read_corpus(corpus(tmp_path)).calibration()


def test_rows_and_columns_are_the_kept_neurons(tmp_path: Path) -> None:
    """Bit for bit, in the parent's order; layers that share K/V keep twice as many where they are double."""
    parent = write_shape(tmp_path / "parent", "e2b")
    cut_exactly(
        SliceRequest(
            domain="biochem",
            layers="3-14",
            model=str(parent),
            ffn="32",
            ffn_rank=FfnRank.RANDOM,
            seed=5,
            output=tmp_path / "out",
        )
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["intermediate_size"] == 32
    kept = random_neurons(opened(parent)[1], range(15), 32, 5)
    before, after = (load_file(folder / "model.safetensors") for folder in (parent, tmp_path / "out"))
    for new, old in enumerate(range(3, 15)):
        rows = torch.from_numpy(kept[old])
        assert len(rows) == (64 if old >= 10 else 32)
        assert (rows.diff() > 0).all()
        for name in ("gate_proj", "up_proj"):
            assert torch.equal(_mlp(after, new, name), _mlp(before, old, name)[rows])
        assert torch.equal(_mlp(after, new, "down_proj"), _mlp(before, old, "down_proj")[:, rows])


def _mlp(tensors: dict[str, torch.Tensor], layer: int, name: str) -> torch.Tensor:
    return tensors[f"model.layers.{layer}.mlp.{name}.weight"]


def test_ffn_combines_with_all_else(tmp_path: Path) -> None:
    """Fewer layers, rows and neurons, with identity layers, of a parent in which dead K/V lie about."""
    parent = add_dead_kv(write_shape(tmp_path / "parent", "e4b"))
    request = SliceRequest(
        domain="biochem", layers="drop:0,17", model=str(parent), vocab="domain", corpus=corpus(tmp_path),
        ffn="32", portable=True, output=tmp_path / "out",
    )  # fmt: skip
    made = cut_exactly(request)
    assert made.recipe["identity_layers"] == [16]
    model = load(tmp_path / "out")
    assert {layer.mlp.down_proj.in_features for layer in model.model.layers} == {32}
    assert model.config.vocab_size == model.config.vocab_size_per_layer_input == made.vocabulary


def test_silent_neurons_score_nothing(tmp_path: Path) -> None:
    """A neuron that never fires, or writes nowhere, is the first to go; a loud one stays."""
    parent = write_shape(tmp_path / "parent", "31b")
    file = parent / "model.safetensors"
    stored = load_file(file)
    _mlp(stored, 2, "down_proj")[:, 7] = 0
    _mlp(stored, 2, "up_proj")[11] = 0
    _mlp(stored, 2, "down_proj")[:, 13] *= 100
    save_file(stored, file, metadata={"format": "pt"})
    checkpoint, anatomy = opened(parent)
    found = neuron_scores(checkpoint, anatomy, TEXT)
    assert found[2][7] == found[2][11] == 0
    assert found[2].argmax() == 13
    assert (np.delete(found[2], [7, 11]) > 0).all()
    kept = best_neurons(anatomy, [2], 32, found)[2]
    assert 13 in kept
    assert not {7, 11} & set(kept.tolist())


def test_score_is_mean_activation_times_column_norm(tmp_path: Path) -> None:
    """Against the formula in float64, from the gate and up outputs rather than from down's input."""
    parent = write_shape(tmp_path / "parent", "gemma3")
    checkpoint, anatomy = opened(parent)
    model, seen = load(parent), dict[str, Any]()
    mlp = model.model.layers[3].mlp
    for name in ("gate_proj", "up_proj"):
        getattr(mlp, name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.setdefault(name, []).append(output[0].double())
        )
    with torch.inference_mode():
        for ids in token_batches(parent, TEXT.documents):
            model(torch.tensor([ids]))
    gate, up = (torch.cat(seen[name]) for name in ("gate_proj", "up_proj"))
    active = (torch.nn.functional.gelu(gate, approximate="tanh") * up).abs().mean(dim=0)
    expected = active * mlp.down_proj.weight.double().norm(dim=0)
    found = neuron_scores(checkpoint, anatomy, TEXT)[3]
    assert np.allclose(found, expected.detach().numpy(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", ["e2b", "12b"])
def test_a_multimodal_parent_scores_as_its_text_side(shape: str, tmp_path: Path) -> None:
    whole = write_multimodal(tmp_path / "whole", shape)
    cut_exactly(SliceRequest(domain="biochem", layers="all", model=str(whole), output=tmp_path / "text"))
    first, second = (neuron_scores(*opened(folder), TEXT) for folder in (whole, tmp_path / "text"))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[i], second[i]) for i in first)


def test_scores_read_more_than_the_beginnings_of_documents(tmp_path: Path) -> None:
    """Texts that differ only after their first thousand tokens have other scores."""
    parent = write_shape(tmp_path / "parent", "gemma3")
    start = TEXT.documents[0] * 100
    texts = [Corpus("files", (start + end,)) for end in (TEXT.documents[1] * 20, "lazy fox " * 20)]
    first, second = (neuron_scores(*opened(parent), text) for text in texts)
    assert not any(np.array_equal(first[i], second[i]) for i in first)


def test_scores_are_cached_by_parent_and_text(
    tmp_path: Path, mom_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tuned model has its base's headers: it used to be enough to tell parents apart by those."""
    parent = write_shape(tmp_path / "parent", "gemma3")
    tuned = Path(shutil.copytree(parent, tmp_path / "tuned"))
    stored = load_file(tuned / "model.safetensors")
    stored = {name: tensor * 1.5 for name, tensor in stored.items()}
    save_file(stored, tuned / "model.safetensors", metadata={"format": "pt"})
    assert opened(tuned)[0].headers_sha256 == opened(parent)[0].headers_sha256
    first = neuron_scores(*opened(parent), TEXT)
    neuron_scores(*opened(parent), Corpus("files", TEXT.documents[:1]))
    neuron_scores(*opened(tuned), TEXT)
    assert len(list((mom_home / "scores").glob("*.safetensors"))) == 3
    monkeypatch.setattr(scores, "_measure", _never)
    again = neuron_scores(*opened(parent), TEXT)
    assert all(np.array_equal(first[i], again[i]) for i in first)


def _never(*args: Any) -> None:
    raise AssertionError("the parent was run again")


def test_damaged_scores_are_named(tmp_path: Path, mom_home: Path) -> None:
    parent = write_shape(tmp_path / "parent", "gemma3")
    neuron_scores(*opened(parent), TEXT)
    (cache,) = (mom_home / "scores").glob("*.safetensors")
    from safetensors.numpy import save

    for content, message in (
        (b"nonsense", "damaged scores.*delete"),
        (save({"layers.0": np.zeros(3, dtype=np.float32)}), r"layer 0 needs 64 finite .*shape \(3,\)"),
    ):
        cache.write_bytes(content)
        with pytest.raises(BadCheckpoint, match=message):
            neuron_scores(*opened(parent), TEXT)


def test_dry_run_does_not_run_the_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mom.workflows import slice

    monkeypatch.setattr(scores, "_measure", _never)
    parent = write_shape(tmp_path / "parent", "gemma3")
    figures = slice.dry_run(
        SliceRequest(domain="biochem", layers="all", model=str(parent), ffn="32", output=tmp_path / "out")
    )
    assert figures["bytes"] < (parent / "model.safetensors").stat().st_size


def test_random_ranks_are_refused_unless_asked_for(tmp_path: Path) -> None:
    """Without scores there is no falling back: a text that gives none stops the cut."""
    parent = write_shape(tmp_path / "parent", "gemma3")
    (parent / "tokenizer.json").unlink()
    options: dict[str, Any] = {"corpus": corpus(tmp_path), "ffn": "32", "output": tmp_path / "out"}
    with pytest.raises(NotFound, match=r"no tokenizer\.json, which reading a text needs"):
        cut(SliceRequest(domain="biochem", layers="all", model=str(parent), **options))
    assert not (tmp_path / "out").exists()
    made = cut_exactly(
        SliceRequest(domain="biochem", layers="all", model=str(parent), **options, ffn_rank=FfnRank.RANDOM)
    )
    assert made.recipe["ffn_rank"] == "random"
