"""Dropped layers that fade out: training starts at the parent, and the slice alone is measured and saved."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import open_checkpoint
from slices.errors import BadConfig
from slices.heal import memory_bound
from slices.heal.control import heal_control
from slices.heal.fade import fade_factor, fading_layers
from slices.heal.heal import heal
from slices.heal.loop import TrainingProgress
from slices.heal.settings import HealConfig
from tests.picos import IDS, load
from tests.slices.heal.test_heal import SHORT, ordered
from tests.slices.heal_fixtures import parent_gemma3, parent_gemma4, slice_of

FADE = replace(SHORT, fade=0.5, hidden_state_weight=0.0)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parent_gemma3(tmp_path_factory.mktemp("fade") / "parent")


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("layers", ["swa", "drop:0,1", "drop:4,5", "drop:0,2,5"])
def test_with_a_factor_of_1_the_student_is_the_parent(layers: str, parent: Path, tmp_path: Path) -> None:
    """And with one of 0 the slice; wherever the gaps are, and whatever attention types are left."""
    student, teacher = load(slice_of(parent, tmp_path / "slice", layers)), load(parent)
    kept = [index for index in range(6) if str(index) not in layers.partition(":")[2].split(",")]
    kept = [0, 1, 3, 4] if layers == "swa" else kept
    fading = fading_layers(student, teacher, read_anatomy(open_checkpoint(parent).config), kept)
    tokens = torch.tensor([IDS])
    with torch.no_grad():
        alone, whole = student(tokens).logits, teacher(tokens).logits
        with fading.at(1.0):
            torch.testing.assert_close(student(tokens).logits, whole, atol=1e-4, rtol=1e-4)
        with fading.at(0.5):
            between = student(tokens).logits
        assert torch.equal(student(tokens).logits, alone)
    assert min(float((between - each).abs().max()) for each in (alone, whole)) > 0.01


def test_the_factor_is_linear_over_its_share_of_the_steps() -> None:
    config = HealConfig(steps=10, fade=0.4)
    assert [fade_factor(config, step) for step in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert fade_factor(HealConfig(steps=10), 0) == 0.0


def test_training_starts_near_the_parent_and_the_slice_alone_is_measured(
    parent: Path, tmp_path: Path
) -> None:
    slice_ = slice_of(parent, tmp_path / "slices" / "cut", "drop:0,2,5")
    losses: dict[float, list[float]] = {}
    results = {}
    for fade in (0.0, 0.5):
        seen = losses.setdefault(fade, [])
        config = replace(FADE, steps=60, fade=fade)
        results[fade] = heal(
            ordered(slice_, tmp_path / f"healed-{fade}", config),
            lambda step, seen=seen: seen.append(step.loss),  # type: ignore[misc]
        )
    assert losses[0.5][0] < 1e-4 < 0.05 < losses[0.0][0]
    assert losses[0.5][30] > 0.01  # the layers are gone
    first = [result.run.curve[0].kl.value for result in results.values()]
    assert first[0] == first[1] > 0.05  # the evaluation before training, without the dropped layers
    names = {entry.name for entry in open_checkpoint(tmp_path / "healed-0.5").entries}
    assert names == {entry.name for entry in open_checkpoint(slice_).entries}
    assert results[0.5].selected.kl.value < first[0]


def test_a_killed_run_resumes_to_the_same_bits(parent: Path, tmp_path: Path) -> None:
    slice_ = slice_of(parent, tmp_path / "slices" / "cut", "drop:0,2,5")
    config = replace(FADE, eval_every=10)

    def kill(step: TrainingProgress) -> None:
        if step.step == 12:
            raise Killed

    with pytest.raises(Killed):
        heal(ordered(slice_, tmp_path / "resumed", config), kill)
    seen: list[int] = []
    heal(ordered(slice_, tmp_path / "resumed", config), lambda step: seen.append(step.step))
    assert seen[0] == 11
    heal(ordered(slice_, tmp_path / "whole", config))
    assert digest(tmp_path / "resumed") == digest(tmp_path / "whole")


def test_the_memory_bound_counts_the_dropped_layers(parent: Path, tmp_path: Path) -> None:
    slice_ = slice_of(parent, tmp_path / "slices" / "swa", "swa")
    plain, fading = (memory_bound.bound(slice_, parent, config, 4) for config in (SHORT, FADE))
    assert fading.activations > plain.activations
    assert fading.total - plain.total < 2 * plain.activations


def test_what_cannot_be_faded_is_refused(parent: Path, tmp_path: Path) -> None:
    whole = slice_of(parent, tmp_path / "slices" / "whole", "all")
    with pytest.raises(BadConfig, match="kept them all"):
        heal(ordered(whole, tmp_path / "healed", FADE))
    gemma4 = slice_of(parent_gemma4(tmp_path / "gemma4"), tmp_path / "slices" / "gemma4", "drop:5")
    with pytest.raises(BadConfig, match="expected a slice of a Gemma 3"):
        heal(ordered(gemma4, tmp_path / "healed", FADE))
    swa = slice_of(parent, tmp_path / "slices" / "swa", "swa")
    cached = replace(ordered(swa, tmp_path / "healed", FADE), teacher=tmp_path / "teacher")
    with pytest.raises(BadConfig, match="--teacher"):
        heal(cached)
    with pytest.raises(BadConfig, match="at most 1"):
        HealConfig(fade=0.6, label_only_fraction=0.5)


def test_the_control_of_a_faded_healing_fades_nothing(parent: Path, tmp_path: Path) -> None:
    """The uncut parent lacks no layer."""
    slice_ = slice_of(parent, tmp_path / "slices" / "swa", "swa")
    request = ordered(slice_, tmp_path / "slices" / "swa-healed", replace(FADE, hard_label_weight=0.5))
    heal(request)
    control = heal_control(request)
    assert control.folder is not None
    made = manifest.read(control.folder).healing
    assert made is not None and made["settings"]["fade"] == 0.0
