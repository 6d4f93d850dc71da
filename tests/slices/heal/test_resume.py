"""A killed healing run resumes to the same weights, to the bit; damaged files are named."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from slices.errors import BadCheckpoint, BadConfig
from slices.heal.heal import fit_steps, heal
from slices.heal.run_state import SCHEMA
from tests.slices.heal.test_heal import SHORT, ordered
from tests.slices.heal_fixtures import parent_gemma4, slice_of

LONG = replace(SHORT, steps=120, eval_every=10)
RUN = """
import sys
from pathlib import Path
from slices.heal.heal import heal
from tests.slices.heal.test_heal import ordered
from tests.slices.heal.test_resume import LONG
heal(ordered(Path(sys.argv[1]), Path(sys.argv[2]), LONG))
"""


@pytest.fixture(scope="module")
def swa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    return slice_of(parent_gemma4(folder / "parent"), folder / "slices" / "swa", "swa")


@pytest.fixture(scope="module")
def begun(swa: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The home of a run that was killed, and the step of its last save."""
    home = tmp_path_factory.mktemp("begun") / "home"
    return home, killed(swa, home, home.parent / "healed")


@pytest.fixture
def saved(begun: tuple[Path, int], mom_home: Path) -> int:
    """The test's own copy of that home; the step of its checkpoint."""
    shutil.copytree(begun[0], mom_home)
    return begun[1]


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def killed(swa: Path, home: Path, target: Path) -> int:
    """Begin a run in a process of its own and kill it once it has saved; the step of its last save."""
    environment = dict(os.environ) | {"MOM_HOME": str(home)}
    child = subprocess.Popen([sys.executable, "-c", RUN, str(swa), str(target)], env=environment)
    try:
        deadline = time.monotonic() + 120
        while not list(home.glob("healing/*/run.json")):
            assert child.poll() is None, "it ended before it saved anything"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not target.exists()
    (state,) = home.glob("healing/*/state-*.safetensors")
    return int(state.stem.removeprefix("state-"))


def test_a_killed_run_resumes_to_the_same_bits(swa: Path, saved: int, mom_home: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    again = heal(ordered(swa, tmp_path / "healed", LONG), lambda progress: steps.append(progress.step))
    assert steps == list(range(saved + 1, LONG.steps + 1))
    assert not list(mom_home.glob("healing/*/*"))  # nothing is left of a finished run
    whole = heal(ordered(swa, tmp_path / "whole", LONG))
    assert digest(tmp_path / "healed") == digest(tmp_path / "whole")
    assert again.run.curve == whole.run.curve


@pytest.mark.usefixtures("saved")
def test_another_run_starts_anew(swa: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    heal(
        ordered(swa, tmp_path / "other", replace(SHORT, seed=1)), lambda progress: steps.append(progress.step)
    )
    assert steps[0] == 1


@pytest.mark.parametrize("damage", ["cut short", "gone", "record", "schema"])
@pytest.mark.usefixtures("saved")
def test_a_damaged_run_is_named(damage: str, swa: Path, mom_home: Path, tmp_path: Path) -> None:
    (state,) = mom_home.glob("healing/*/state-*.safetensors")
    if damage == "cut short":
        state.write_bytes(state.read_bytes()[:-100])
    elif damage == "gone":
        state.unlink()
    else:
        record = {"schema": SCHEMA, "step": "x"} if damage == "record" else {"step": 10}
        (state.parent / "run.json").write_text(json.dumps(record))
    problem = f"expected schema {SCHEMA}, found 1.*" if damage == "schema" else ""
    with pytest.raises(BadCheckpoint, match=problem + "to begin anew"):
        heal(ordered(swa, tmp_path / "healed", LONG))
    assert not (tmp_path / "healed").exists()


def test_minutes_become_steps_once(swa: Path, tmp_path: Path) -> None:
    """The number is cached, so that a killed run resumes as the same run."""
    request = ordered(swa, tmp_path / "healed")
    first = fit_steps(request, 0.05).config.steps
    assert first >= 1
    assert fit_steps(request, 0.05).config.steps == first
    assert fit_steps(request, 5.0).config.steps > first
    label_only = replace(request, config=replace(request.config, label_only_fraction=0.5))
    assert fit_steps(label_only, 0.05).config.steps >= 1
    with pytest.raises(BadConfig, match="--minutes -1"):
        fit_steps(request, -1)
