"""The weights before healing: of the slice that was healed, else those that its parent still has."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from slices import manifest
from slices.checkpoint import open_checkpoint
from slices.errors import NotFound
from slices.heal.heal import heal
from slices.heal.request import HealRequest
from slices.heal.settings import HealConfig
from slices.measure.unhealed import unhealed_weights
from tests.slices.heal_fixtures import parent_gemma4, sentences, slice_of

SHORT = HealConfig(
    steps=4, row_tokens=32, hard_label_weight=0.5, lr=3e-3, precision="float32", warmup_steps=0
)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The parent, a slice of its sliding layers, and that slice healed."""
    parent = parent_gemma4(tmp_path / "parent")
    slice_ = slice_of(parent, tmp_path / "slices" / "swa", "swa")
    target = tmp_path / "slices" / "healed"
    heal(HealRequest(slice=slice_, target=target, text=sentences(), config=SHORT, threads=1))
    return parent, slice_, target


def contents(folder: Path) -> dict[str, bytes]:
    return {
        entry.name.removeprefix("model."): entry.file.read_bytes()[entry.start : entry.start + entry.nbytes]
        for entry in open_checkpoint(folder).entries
    }


def test_they_are_the_slices_and_else_the_parents_of_the_same_layers(
    folders: tuple[Path, Path, Path],
) -> None:
    _, slice_, healed = folders
    expected = contents(slice_)
    found = unhealed_weights(healed)
    assert (found.source, found.entries.keys()) == ("slice", expected.keys())
    shutil.rmtree(slice_)
    found = unhealed_weights(healed)
    assert found.source == "parent"
    whole = {name for name in expected if "per_layer" not in name or ".layers." in f".{name}"}
    assert whole <= found.entries.keys()
    for name, entry in found.entries.items():
        stored = entry.file.read_bytes()[entry.start : entry.start + entry.nbytes]
        assert stored == expected[name], name


def test_a_slice_that_changed_is_not_the_unhealed_one(folders: tuple[Path, Path, Path]) -> None:
    _, slice_, healed = folders
    file = slice_ / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-(len(data) // 3) :] = bytes(len(data) // 3)
    file.write_bytes(data)
    assert unhealed_weights(healed).source == "parent"


def test_without_slice_and_parent_there_are_none(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    parent, slice_, healed = folders
    shutil.rmtree(slice_)
    made = manifest.read(healed)
    other = made.parent.model_copy(update={"headers_sha256": "0" * 64})
    manifest.write(healed, made.model_copy(update={"parent": other}))
    with pytest.raises(NotFound, match=f"gone or changed, and {parent} is another"):
        unhealed_weights(healed)
    manifest.write(healed, made)
    shutil.rmtree(parent)
    with pytest.raises(NotFound, match="gone or changed, and its parent too"):
        unhealed_weights(healed)


def test_a_cut_vocabulary_leaves_the_embedding_out(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    parent, _, _ = folders
    slice_ = slice_of(parent, tmp_path / "words", "all", "400")
    target = tmp_path / "words-healed"
    heal(
        HealRequest(slice=slice_, target=target, text=sentences(), config=replace(SHORT, steps=20), threads=1)
    )
    shutil.rmtree(slice_)
    entries = unhealed_weights(target).entries
    assert "embed_tokens.weight" not in entries
    assert "layers.0.mlp.up_proj.weight" in entries
