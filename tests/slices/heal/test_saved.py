"""Healing by a teacher on disk, with no parent in memory, and what is refused of such a file."""

from dataclasses import replace
from pathlib import Path

import pytest

from slices.errors import BadCheckpoint, Exists, NotFound, SliceError
from slices.heal import heal as story
from slices.heal.heal import Order, heal, save_teacher
from tests.slices.heal.test_heal import SHORT, ordered
from tests.slices.heal_fixtures import parent_gemma4, slice_of


@pytest.fixture
def swa(tmp_path: Path) -> Path:
    return slice_of(parent_gemma4(tmp_path / "parent"), tmp_path / "slices" / "swa", "swa")


def saved(order: Order, path: Path, k: int) -> int:
    return save_teacher(order, path, k, lambda done, total: None)


def test_a_teacher_that_kept_all_heals_as_the_parent_does(swa: Path, tmp_path: Path) -> None:
    """But for float16: a saved log probability is off by one in two thousand."""
    order = ordered(swa, tmp_path / "live", replace(SHORT, states=0.0))
    nbytes = saved(order, tmp_path / "teacher.safetensors", 10**6)
    assert nbytes == (tmp_path / "teacher.safetensors").stat().st_size
    live = heal(order)
    later = heal(replace(order, target=tmp_path / "saved", teacher=tmp_path / "teacher.safetensors"))
    assert later.before.kl.value == pytest.approx(live.before.kl.value, abs=2e-3)
    assert later.after.kl.value == pytest.approx(live.after.kl.value, abs=1e-2)


def test_few_tokens_of_each_position_are_enough_to_heal(
    swa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the parent's weights are not loaded for it."""
    order = ordered(swa, tmp_path / "healed")
    small = saved(order, tmp_path / "small.safetensors", 16)
    assert small < saved(order, tmp_path / "large.safetensors", 64) / 3.5
    monkeypatch.setattr(story, "Parent", None)
    healed = heal(replace(order, teacher=tmp_path / "small.safetensors"))
    assert healed.after.kl.value < 0.9 * healed.before.kl.value
    assert healed.manifest.healing is not None
    assert healed.manifest.healing["teacher"] == "saved"


def test_a_teacher_of_other_text_is_refused(swa: Path, tmp_path: Path) -> None:
    order = ordered(swa, tmp_path / "healed")
    saved(order, tmp_path / "t.safetensors", 8)
    other = replace(order, teacher=tmp_path / "t.safetensors", healing=replace(SHORT, seed=7))
    with pytest.raises(BadCheckpoint, match="was saved for other text"):
        heal(other)


@pytest.mark.parametrize("damage", ["gone", "cut short", "another file"])
def test_a_damaged_teacher_is_named(damage: str, swa: Path, tmp_path: Path) -> None:
    order, path = ordered(swa, tmp_path / "healed"), tmp_path / "t.safetensors"
    if damage == "another file":
        path = swa / "model.safetensors"
    elif damage == "cut short":
        saved(order, path, 8)
        path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(NotFound if damage == "gone" else BadCheckpoint, match=path.name):
        heal(replace(order, teacher=path))
    assert not order.target.exists()


def test_an_existing_file_and_a_full_disk_are_refused(
    swa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, path = ordered(swa, tmp_path / "healed"), tmp_path / "t.safetensors"
    path.write_text("mine")
    with pytest.raises(Exists):
        saved(order, path, 8)
    assert path.read_text() == "mine"
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(SliceError, match="only 1,000 are free"):
        saved(order, tmp_path / "new.safetensors", 8)
