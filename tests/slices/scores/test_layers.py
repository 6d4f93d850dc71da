"""Layer scores, against plain implementations and against layers made useless on purpose."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from slices.architecture.anatomy import Anatomy, read_anatomy
from slices.checkpoint import Checkpoint, open_checkpoint
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.device import choose_device
from slices.errors import BadCheckpoint, InvalidCut, RunFailed
from slices.home import home
from slices.scores import bypass
from slices.scores.bypass import block_influence, load_bypass_model
from slices.scores.layers import cheapest, layer_scores
from slices.scores.removal import MAX_KL, remaining_layers, removal_order, removals_within
from tests.picos import bypassed, load, write_shape
from tests.slices.heal_fixtures import parent_gemma3, parent_gemma4, sentences

TOKENS = 200


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 on one thread, so that figures can be compared."""
    monkeypatch.setattr(bypass, "CONTEXT", 64)
    monkeypatch.setattr(bypass, "choose_device", lambda name: choose_device(name, "float32", 1))


def opened(folder: Path) -> tuple[Checkpoint, Anatomy]:
    checkpoint = open_checkpoint(folder)
    return checkpoint, read_anatomy(checkpoint.config)


def reference_kl(folder: Path, dropped: Sequence[int], batches: Sequence[torch.Tensor]) -> float:
    """KL(parent || bypassed) over the whole vocabulary, as the tests of cutting bypass."""
    model, total, count = load(folder), 0.0, 0
    kept = [index for index in range(model.config.num_hidden_layers) if index not in dropped]
    for tokens in batches:
        with torch.inference_mode():
            whole = model(tokens, use_cache=False).logits[0].log_softmax(-1)
            with bypassed(model, kept):
                logprobs = model(tokens, use_cache=False).logits[0].log_softmax(-1)
        total += float((whole.exp() * (whole - logprobs)).sum())
        count += tokens.shape[1]
    return total / count


@pytest.mark.parametrize("shape", ["gemma3", "e4b", "26b"])
def test_kls_are_those_of_a_bypassed_parent(shape: str, tmp_path: Path) -> None:
    """Alone and on top of others, with what lies below taken from an earlier run; donors and sharers too."""
    folder = write_shape(tmp_path / "parent", shape)
    found = load_bypass_model(*opened(folder), sentences(), TOKENS)
    assert found.kl([]).value == pytest.approx(0, abs=1e-6)
    for removed in ([], [7], [2, 8]):
        below = found.states(removed)
        for layer in (0, 4, 5, 9):
            layers = [*removed, layer]
            expected = reference_kl(folder, layers, found.batches)
            assert found.kl(layers, below).value == pytest.approx(expected, rel=1e-3, abs=1e-6)
            assert found.kl(layers).value == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_influence_is_that_of_the_hidden_states(tmp_path: Path) -> None:
    folder = parent_gemma3(tmp_path / "parent")
    found = load_bypass_model(*opened(folder), sentences(), TOKENS)
    model, near = load(folder), []
    for tokens in found.batches:
        # transformers gives the last state after the final norm, so the last layer is left out here
        states = model(tokens, output_hidden_states=True, use_cache=False).hidden_states[:-1]
        near.append(torch.stack([torch.cosine_similarity(a, b, dim=-1)[0] for a, b in pairwise(states)]))
    expected = 1 - torch.cat(near, dim=1).mean(dim=1)
    assert block_influence(found.states())[:-1] == pytest.approx(expected.detach().numpy(), abs=1e-5)


def useless(folder: Path, layer: int) -> Path:
    """Make a layer add nothing, by the gains of the norms behind its two halves."""
    tensors = load_file(folder / "model.safetensors")
    for name, weight in tensors.items():
        if f"layers.{layer}." in name and "post_" in name:
            weight.fill_(-1.0)  # Gemma 3 scales by 1 + gain
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_useless_layer_scores_zero_and_is_removed_first(tmp_path: Path) -> None:
    checkpoint, anatomy = opened(useless(parent_gemma3(tmp_path / "parent"), 3))
    scores = layer_scores(checkpoint, anatomy, sentences(), TOKENS)
    assert scores[3].kl.value == pytest.approx(0, abs=1e-6)
    assert scores[3].influence == pytest.approx(0, abs=1e-6)
    assert cheapest(scores).layer == 3
    assert scores[3].kl_after_cheapest is None
    assert all(score.kl.value > 1e-3 < score.influence for score in scores if score.layer != 3)
    for score in scores:  # removing a useless layer changes nothing
        second = score.kl_after_cheapest
        assert second is None or second.value == pytest.approx(score.kl.value, abs=1e-5)
    removals = removals_within(checkpoint, anatomy, sentences(), 1e-4, max_tokens=TOKENS)
    assert [removal.layer for removal in removals] == [3]


def test_greedy_order_is_the_one_that_brute_force_finds(tmp_path: Path) -> None:
    folder = parent_gemma3(tmp_path / "parent")
    order = removal_order(*opened(folder), sentences(), 3, max_tokens=TOKENS)
    batches, removed = load_bypass_model(*opened(folder), sentences(), TOKENS).batches, list[int]()
    for removal in order:
        kls = {i: reference_kl(folder, [*removed, i], batches) for i in range(6) if i not in removed}
        assert removal.layer == min(kls, key=lambda layer: kls[layer])
        assert removal.kl.value == pytest.approx(kls[removal.layer], rel=1e-3)
        removed.append(removal.layer)


def test_layers_that_added_much_are_not_tried_again(tmp_path: Path) -> None:
    """Removing a useless layer changes no KL, so few layers can be the cheapest of the next step."""
    tried = list[tuple[int, int]]()

    def on_progress(stage: str, done: int, total: int) -> None:
        tried.append((done, total))

    checkpoint, anatomy = opened(useless(parent_gemma3(tmp_path / "parent"), 3))
    order = removal_order(checkpoint, anatomy, sentences(), 2, on_progress, TOKENS)
    assert order[0].layer == 3
    assert [n for n, of in tried if of == 6] == [1, 2, 3, 4, 5, 6, 6]
    assert 1 < len([n for n, of in tried if of == 5]) < 6  # the last one only fills the bar
    again = removal_order(checkpoint, anatomy, sentences(), 3, on_progress, TOKENS)
    assert again[:2] == order
    assert 1 < len([n for n, of in tried if of == 4]) < 5  # what was learned is kept with the order


def test_every_step_leaves_a_valid_cut(tmp_path: Path) -> None:
    """Donors 1 and 2 of this pico can go only after layers 3, 4 and 5, which read their K/V."""
    checkpoint, anatomy = opened(parent_gemma4(tmp_path / "parent"))
    order = removal_order(checkpoint, anatomy, sentences(), 5, max_tokens=TOKENS)
    assert len({removal.layer for removal in order}) == 5
    for count in range(6):
        kept = set(remaining_layers(anatomy, order[:count]))
        assert all(anatomy.layers[i].donor in (None, *kept) for i in kept)


def test_scores_are_kept_by_text_and_a_longer_order_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, anatomy = opened(parent_gemma3(tmp_path / "parent"))
    order = removal_order(checkpoint, anatomy, sentences(), 2, max_tokens=TOKENS)
    scores = layer_scores(checkpoint, anatomy, sentences(), TOKENS)
    monkeypatch.setattr("slices.scores.removal.load_bypass_model", None)
    monkeypatch.setattr("slices.scores.layers.load_bypass_model", None)
    assert removal_order(checkpoint, anatomy, sentences(), 1, max_tokens=TOKENS) == order[:1]
    assert layer_scores(checkpoint, anatomy, sentences(), TOKENS) == scores
    with pytest.raises(TypeError):  # other text is measured anew
        layer_scores(checkpoint, anatomy, sentences(seed=2), TOKENS)


def test_damaged_scores_are_named(tmp_path: Path) -> None:
    checkpoint, anatomy = opened(parent_gemma3(tmp_path / "parent"))
    removal_order(checkpoint, anatomy, sentences(), 1, max_tokens=TOKENS)
    (file,) = (home() / "scores").glob("removal-*.json")
    for damage in ("{", "[]", '{"schema": 2, "order": [{"layer": 1}]}'):
        file.write_text(damage)
        with pytest.raises(BadCheckpoint, match=r"removal-.*\.json: damaged scores"):
            removal_order(checkpoint, anatomy, sentences(), 1, max_tokens=TOKENS)


def test_scores_of_another_schema_are_refused(tmp_path: Path) -> None:
    checkpoint, anatomy = opened(parent_gemma3(tmp_path / "parent"))
    removal_order(checkpoint, anatomy, sentences(), 1, max_tokens=TOKENS)
    (file,) = (home() / "scores").glob("removal-*.json")
    file.write_text('{"order": [], "added": {}}')
    with pytest.raises(BadCheckpoint, match=r"expected schema 2, found 1: .*; delete the file"):
        removal_order(checkpoint, anatomy, sentences(), 1, max_tokens=TOKENS)


def test_nan_weights_are_reported(tmp_path: Path) -> None:
    folder = parent_gemma3(tmp_path / "parent")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunFailed, match="NaN or infinity"):
        layer_scores(*opened(folder), sentences(), TOKENS)


def test_too_many_removals_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidCut, match="6 of 6 layers cannot be removed"):
        removal_order(*opened(parent_gemma3(tmp_path / "parent")), sentences(), 6)


def test_a_slice_of_auto_layers_records_its_removals(tmp_path: Path) -> None:
    folder = useless(parent_gemma3(tmp_path / "parent"), 3)
    (tmp_path / "text.md").write_text("\n\n".join(sentences().documents), encoding="utf-8")
    for spec in ("auto:5", "auto"):
        made = cut(
            SliceRequest(
                domain="biochem",
                layers=spec,
                model=str(folder),
                corpus=(tmp_path / "text.md",),
                output=tmp_path / spec[-1],
            )
        )
        removed = made.recipe["removed"]
        assert removed[0]["layer"] == 3
        assert made.layers == sorted({0, 1, 2, 3, 4, 5} - {each["layer"] for each in removed})
        assert len(removed) == 1 if spec == "auto:5" else removed[-1]["kl"]["value"] <= MAX_KL
        assert made.calibration.source == "files"
