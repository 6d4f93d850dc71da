"""The control: the uncut parent healed alike, found again, resumed, and told where it is no better."""

from dataclasses import replace
from pathlib import Path

import pytest

from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import fingerprint, open_checkpoint
from slices.errors import BadConfig, RunFailed
from slices.heal import control
from slices.heal.control import (
    Control,
    check_control,
    control_folder,
    heal_control,
    is_control,
    is_healed_by,
    read_control,
)
from slices.heal.heal import heal
from slices.heal.request import HealRequest
from slices.heal.settings import HealConfig
from tests.slices.heal.test_heal import SHORT, ordered
from tests.slices.heal_fixtures import parent_gemma4, slice_of

FEW = replace(SHORT, steps=20, hard_label_weight=0.5, lr=None)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parent_gemma4(tmp_path_factory.mktemp("control") / "parent")


@pytest.fixture
def request_(parent: Path, tmp_path: Path) -> HealRequest:
    """A finished healing of a slice with a cut vocabulary."""
    slice_ = slice_of(parent, tmp_path / "slices" / "words", "all", "400")
    request = ordered(slice_, tmp_path / "slices" / "words-healed", replace(FEW, lr=3e-3))
    heal(request)
    return request


def test_the_uncut_parent_is_healed_alike(request_: HealRequest, parent: Path) -> None:
    healed = manifest.read(request_.target)
    assert read_control(healed) is None
    made = heal_control(request_)
    folder = control_folder(request_.target)
    assert made == Control(folder) == read_control(manifest.read(request_.target))
    assert healed.healing is not None
    found = manifest.read(folder)
    assert found.healing is not None
    assert found.healing["settings"] == {**healed.healing["settings"], "hidden_state_weight": 0.0}
    assert (found.healing["steps"], found.healing["tokens"]) == (20, healed.healing["tokens"])
    assert found.healing["text"]["sha256"] == healed.healing["text"]["sha256"]
    assert found.vocabulary == read_anatomy(open_checkpoint(parent).config).dims.vocab
    assert (
        found.healing["after"]["bits_per_byte"]["value"] < found.healing["before"]["bits_per_byte"]["value"]
    )
    assert found.healing["before"]["kl"]["value"] == pytest.approx(0, abs=1e-4)  # it was the parent
    assert is_control(found) and not is_control(healed)
    assert found.name not in [made.name for _, made in manifest.all_slices(request_.target.parent)]
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]  # no scratch is left


def test_a_control_that_is_there_is_taken_and_another_is_not(request_: HealRequest) -> None:
    heal_control(request_)
    folder = control_folder(request_.target)
    first = fingerprint(open_checkpoint(folder))
    manifest.write(folder, manifest.read(folder).model_copy(update={"created": "before"}))
    heal_control(request_)
    assert manifest.read(folder).created == "before"
    other = replace(request_, config=replace(request_.config, lr=1e-3), force=True)
    heal(other)
    heal_control(other)
    assert manifest.read(folder).created != "before"
    assert fingerprint(open_checkpoint(folder)) != first


def test_a_parent_that_gets_no_better_is_the_control_itself(
    request_: HealRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distilled from itself alone, it cannot get better."""
    made = manifest.read(request_.target)
    assert made.healing is not None
    settings = {**made.healing["settings"], "hard_label_weight": 0.0}
    distilled = {**made.healing, "settings": settings}
    manifest.write(request_.target, made.model_copy(update={"healing": distilled}))
    found = heal_control(request_)
    assert found.folder is None
    assert found.reason is not None and "healing made the parent no better" in found.reason
    assert read_control(manifest.read(request_.target)) == found
    assert not control_folder(request_.target).exists()


def test_a_killed_control_resumes_to_the_same_bits(
    request_: HealRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = heal_control(request_)
    assert whole.folder is not None
    expected = fingerprint(open_checkpoint(whole.folder))
    (whole.folder / manifest.FILE).unlink()  # as if it had never been finished

    def stop(progress: object) -> None:
        if getattr(progress, "step", 0) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        heal_control(request_, stop)
    seen: list[int] = []
    heal_control(request_, lambda progress: seen.append(progress.step))
    assert fingerprint(open_checkpoint(whole.folder)) == expected


def test_a_finished_healing_is_known_again(request_: HealRequest) -> None:
    assert is_healed_by(request_)
    assert is_healed_by(replace(request_, config=replace(request_.config, lr=None)))  # left to the default
    assert not is_healed_by(replace(request_, config=replace(request_.config, lr=1e-4)))
    assert not is_healed_by(replace(request_, text=replace(request_.text, documents=("other",) * 20)))
    assert not is_healed_by(replace(request_, target=request_.target.parent / "nothing"))


def test_what_cannot_be_is_refused_before_the_slice_is_healed(
    request_: HealRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_control(request_)
    with pytest.raises(BadConfig, match="no cached teacher"):
        check_control(replace(request_, teacher=Path("teacher.safetensors")))
    monkeypatch.setattr("slices.heal.memory_bound.available_memory", lambda: 1000)
    with pytest.raises(RunFailed, match="GB are available"):
        check_control(request_)


def test_names_stay_within_the_limit(tmp_path: Path) -> None:
    assert control_folder(tmp_path / "a").name == "a-control"
    assert len(control_folder(tmp_path / ("a" * 64)).name) == 64
    assert control_folder(tmp_path / "a").parent.name == control.FOLDER


def test_settings_come_back_from_json() -> None:
    config = HealConfig(lr=1e-4, row_tokens=64)
    assert HealConfig.from_json(config.to_json()) == config
    assert HealConfig.from_json(config.to_json()).to_json() == config.to_json()
    with pytest.raises(BadConfig, match="the setting 'hard', which this version does not know"):
        HealConfig.from_json({"hard": 1})
