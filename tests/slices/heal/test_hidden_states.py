"""Hidden-state distillation: which layers match, what is captured, the loss, and its effect."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import open_checkpoint
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.device import choose_device
from slices.errors import BadConfig
from slices.heal.heal import heal, save_teacher
from slices.heal.hidden_states import HiddenStates, hidden_state_loss, matching_layers
from slices.heal.settings import HealConfig
from slices.heal.student import Student, load_student
from slices.heal.teacher import ParentTeacher, find_parent
from slices.heal.text import read_text
from tests.picos import load
from tests.slices.heal.test_heal import SHORT, ordered
from tests.slices.heal_fixtures import parent_gemma3, parent_gemma4, sentences, slice_of

TOKENS = torch.arange(3, 43).reshape(2, 20)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return parent_gemma4(tmp_path / "parent")


def opened(slice_: Path, settings: HealConfig = SHORT) -> tuple[Student, ParentTeacher]:
    """A slice and its parent, both capturing the inputs of the layers that they share behind the gap."""
    folder, token_map = find_parent(slice_)
    made = manifest.read(slice_)
    anatomy = read_anatomy(open_checkpoint(folder).config)
    own, theirs = matching_layers(anatomy, made.layers, bool(made.recipe["portable"]))
    device = choose_device("cpu", "float32", 1)
    text = read_text(slice_, sentences(), settings)
    return load_student(slice_, settings, device, None, own), ParentTeacher(
        folder=folder, token_map=token_map, text=text, device=device, captured_layers=theirs
    )


@pytest.mark.parametrize(
    ("kept", "pairs"),
    [
        ([0, 1, 2, 3, 4, 5], []),
        ([0, 1, 3, 4, 5], [(2, 3), (3, 4), (4, 5)]),
        ([1, 2, 3, 4, 5], [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]),
        ([0, 1, 2, 3, 4], []),  # only what leaves the last layer differs
    ],
)
def test_layers_behind_the_gap_match(
    kept: Sequence[int], pairs: list[tuple[int, int]], tmp_path: Path
) -> None:
    anatomy = read_anatomy(open_checkpoint(parent_gemma3(tmp_path / "p")).config)
    own, theirs = matching_layers(anatomy, kept, portable=False)
    assert list(zip(own, theirs, strict=True)) == pairs


def test_identity_layers_match_nothing(parent: Path, tmp_path: Path) -> None:
    target = tmp_path / "portable"
    cut(SliceRequest(domain="biochem", layers="swa", model=str(parent), output=target, portable=True))
    student, teacher = opened(target)
    assert (
        len(student.captured_layers) == len(teacher._captured_layers) == 2
    )  # of four, two stand before the gap
    ours, theirs = student.hidden_states(TOKENS), _states(teacher)
    assert (
        ours.layer_inputs[0].shape == theirs.layer_inputs[0].shape == (40, student.model.config.hidden_size)
    )


def _states(teacher: ParentTeacher) -> HiddenStates:
    return teacher._run(TOKENS.numpy().astype(np.int32), teacher._captured_layers).states


def test_captured_states_are_the_layer_inputs(parent: Path, tmp_path: Path) -> None:
    """Against the hidden states that transformers returns, by Gemma 4's layers."""
    student, teacher = opened(slice_of(parent, tmp_path / "swa", "drop:0"))
    whole = load(parent)(TOKENS, output_hidden_states=True).hidden_states
    for number, layer in enumerate((1, 2, 3, 4, 5)):
        found = _states(teacher).layer_inputs[number]
        assert torch.allclose(found, whole[layer].flatten(0, 1), atol=1e-5), layer
    assert torch.allclose(_states(teacher).last, whole[-1].flatten(0, 1), atol=1e-5)
    assert student.hidden_states(TOKENS).layer_inputs[0].shape == found.shape


def test_the_loss_by_hand() -> None:
    draw = torch.Generator().manual_seed(1)
    a, b, c, d = (torch.randn(7, 5, generator=draw) for _ in range(4))
    found = hidden_state_loss(HiddenStates((a,), c), HiddenStates((b,), d), [lambda x: 2 * x + 1])
    entering = ((2 * a - 2 * b) ** 2).sum(1) / ((2 * b + 1) ** 2).sum(1)
    last = ((c - d) ** 2).sum(1) / (d**2).sum(1)
    assert found.item() == pytest.approx(((entering.mean() + last.mean()) / 2).item())
    assert hidden_state_loss(HiddenStates((a,), c), HiddenStates((a,), c), [torch.nn.Identity()]).item() == 0


def distance(student: Student, teacher: ParentTeacher) -> float:
    """On held-out text."""
    window = teacher._text.windows[0][None]
    with torch.no_grad():
        theirs = teacher._run(window, teacher._captured_layers)
        return float(theirs.hidden_state_loss(student.hidden_states(torch.tensor(window, dtype=torch.int64))))


def test_the_hidden_state_loss_lowers_the_distance(parent: Path, tmp_path: Path) -> None:
    """The loss reduces the distance that it measures, more than training without it, for the same steps."""
    swa = slice_of(parent, tmp_path / "slices" / "swa", "swa")
    before = distance(*opened(swa))
    found = {}
    for weight in (0.0, 30.0):
        target = tmp_path / "slices" / f"weight-{weight:.0f}"
        heal(ordered(swa, target, replace(SHORT, hidden_state_weight=weight, lr=1e-2)))
        found[weight] = distance(*opened(target))
    assert found[30.0] < before
    assert found[30.0] < 0.9 * found[0.0]


def test_a_cached_teacher_has_no_hidden_states(parent: Path, tmp_path: Path) -> None:
    """The default weight is 0 then; another is refused before anything is loaded."""
    swa = slice_of(parent, tmp_path / "slices" / "swa", "swa")
    file = tmp_path / "teacher.safetensors"
    save_teacher(ordered(swa, tmp_path / "t"), file, 8)
    with pytest.raises(
        BadConfig, match=r"--hidden-state-weight 1\.0: expected 0, since a cached teacher holds no"
    ):
        heal(replace(ordered(swa, tmp_path / "t", replace(SHORT, hidden_state_weight=1.0)), teacher=file))
    healed = heal(replace(ordered(swa, tmp_path / "t"), teacher=file))
    assert healed.after.kl.value < healed.before.kl.value
