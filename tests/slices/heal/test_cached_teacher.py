"""Healing with cached teacher logits and no parent in memory, and what is refused of such a file."""

from dataclasses import replace
from pathlib import Path

import pytest

from slices.errors import BadCheckpoint, Exists, NotFound, SliceError
from slices.heal.heal import heal, save_teacher
from slices.heal.request import HealRequest
from slices.heal.settings import LostTokens
from tests.slices.heal.test_heal import SHORT, ordered
from tests.slices.heal_fixtures import parent_gemma3, parent_gemma4, slice_of


@pytest.fixture
def swa(tmp_path: Path) -> Path:
    return slice_of(parent_gemma4(tmp_path / "parent"), tmp_path / "slices" / "swa", "swa")


def save(request: HealRequest, path: Path, k: int) -> int:
    return save_teacher(request, path, k)


def test_a_cached_teacher_with_every_token_heals_as_the_parent_does(swa: Path, tmp_path: Path) -> None:
    """But for float16: a cached log probability has a relative error of one in two thousand."""
    request = ordered(swa, tmp_path / "live", replace(SHORT, hidden_state_weight=0.0))
    nbytes = save(request, tmp_path / "teacher.safetensors", 10**6)
    assert nbytes == (tmp_path / "teacher.safetensors").stat().st_size
    live = heal(request)
    later = heal(replace(request, target=tmp_path / "saved", teacher=tmp_path / "teacher.safetensors"))
    assert later.before.kl.value == pytest.approx(live.before.kl.value, abs=2e-3)
    assert later.after.kl.value == pytest.approx(live.after.kl.value, abs=1e-2)


def test_the_top_k_tokens_are_enough_to_heal(
    swa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the parent's weights are not loaded for it."""
    request = ordered(swa, tmp_path / "healed")
    small = save(request, tmp_path / "small.safetensors", 16)
    assert small < save(request, tmp_path / "large.safetensors", 64) / 3.5
    monkeypatch.setattr("slices.heal.load.ParentTeacher", None)
    healed = heal(replace(request, teacher=tmp_path / "small.safetensors"))
    assert healed.after.kl.value < 0.9 * healed.before.kl.value
    assert healed.manifest.healing is not None
    assert healed.manifest.healing["teacher"] == "cached"


def test_a_teacher_of_other_text_is_refused(swa: Path, tmp_path: Path) -> None:
    request = ordered(swa, tmp_path / "healed")
    save(request, tmp_path / "t.safetensors", 8)
    other = replace(request, teacher=tmp_path / "t.safetensors", config=replace(SHORT, seed=7))
    with pytest.raises(BadCheckpoint, match="was saved for other text"):
        heal(other)


@pytest.mark.parametrize("saved", list(LostTokens))
def test_a_teacher_that_treats_lost_tokens_otherwise_is_refused(saved: LostTokens, tmp_path: Path) -> None:
    """And one that treats them alike heals as the parent does."""
    words = slice_of(parent_gemma3(tmp_path / "parent"), tmp_path / "slices" / "words", "all", "400")
    config = replace(SHORT, steps=4, eval_every=4, hard_label_weight=0.5, lost_tokens=saved)
    request = ordered(words, tmp_path / "healed", config)
    save(request, tmp_path / "t.safetensors", 10**6)
    (other,) = set(LostTokens) - {saved}
    wrong = replace(config, lost_tokens=other)
    with pytest.raises(BadCheckpoint, match=f"saved with --lost-tokens {saved}, but this run has {other}"):
        heal(replace(request, teacher=tmp_path / "t.safetensors", config=wrong))
    live = heal(replace(request, target=tmp_path / "live"))
    later = heal(replace(request, teacher=tmp_path / "t.safetensors"))
    assert later.before.kl.value == pytest.approx(live.before.kl.value, abs=2e-3)
    assert later.after.kl.value == pytest.approx(live.after.kl.value, abs=2e-3)


@pytest.mark.parametrize("damage", ["gone", "cut short", "another file"])
def test_a_damaged_teacher_is_named(damage: str, swa: Path, tmp_path: Path) -> None:
    request, path = ordered(swa, tmp_path / "healed"), tmp_path / "t.safetensors"
    if damage == "another file":
        path = swa / "model.safetensors"
    elif damage == "cut short":
        save(request, path, 8)
        path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(NotFound if damage == "gone" else BadCheckpoint, match=path.name):
        heal(replace(request, teacher=path))
    assert not request.target.exists()


def test_an_existing_file_and_a_full_disk_are_refused(
    swa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, path = ordered(swa, tmp_path / "healed"), tmp_path / "t.safetensors"
    path.write_text("mine")
    with pytest.raises(Exists):
        save(request, path, 8)
    assert path.read_text() == "mine"
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(SliceError, match="only 1,000 are free"):
        save(request, tmp_path / "new.safetensors", 8)
