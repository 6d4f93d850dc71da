"""A killed healing run goes on to the same weights, to the bit; what is damaged is named."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from slices.errors import BadCheckpoint, BadConfig
from slices.heal.heal import heal, within
from slices.home import home
from tests.slices.heal_fixtures import parent_gemma4, slice_of
from tests.slices.test_heal import SHORT, ordered

LONG = replace(SHORT, steps=120, every=10)
RUN = """
import sys
from pathlib import Path
from slices.heal.heal import heal
from tests.slices.test_heal import ordered
from tests.slices.test_heal_resume import LONG
heal(ordered(Path(sys.argv[1]), Path(sys.argv[2]), LONG))
"""


@pytest.fixture
def swa(tmp_path: Path) -> Path:
    return slice_of(parent_gemma4(tmp_path / "parent"), tmp_path / "slices" / "swa", "swa")


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def killed(swa: Path, target: Path) -> int:
    """Begin a run in a process of its own and kill it once it has saved; the step of its last save."""
    child = subprocess.Popen([sys.executable, "-c", RUN, str(swa), str(target)], env=dict(os.environ))
    try:
        deadline = time.monotonic() + 120
        while not list(home().glob("healing/*/run.json")):
            assert child.poll() is None, "it ended before it saved anything"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not target.exists()
    (state,) = home().glob("healing/*/state-*.safetensors")
    return int(state.stem.removeprefix("state-"))


def test_a_killed_run_goes_on_to_the_same_bits(swa: Path, tmp_path: Path) -> None:
    saved = killed(swa, tmp_path / "healed")
    steps: list[int] = []
    again = heal(ordered(swa, tmp_path / "healed", LONG), lambda news: steps.append(news.step))
    assert steps == list(range(saved + 1, LONG.steps + 1))
    assert not list(home().glob("healing/*/*"))  # nothing is left of a finished run
    whole = heal(ordered(swa, tmp_path / "whole", LONG))
    assert digest(tmp_path / "healed") == digest(tmp_path / "whole")
    assert again.run.curve == whole.run.curve


def test_another_run_is_not_taken_up(swa: Path, tmp_path: Path) -> None:
    killed(swa, tmp_path / "healed")
    steps: list[int] = []
    heal(ordered(swa, tmp_path / "other", replace(SHORT, seed=1)), lambda news: steps.append(news.step))
    assert steps[0] == 1


@pytest.mark.parametrize("damage", ["cut short", "gone", "record"])
def test_a_damaged_run_is_named(damage: str, swa: Path, tmp_path: Path) -> None:
    killed(swa, tmp_path / "healed")
    (state,) = home().glob("healing/*/state-*.safetensors")
    if damage == "cut short":
        state.write_bytes(state.read_bytes()[:-100])
    elif damage == "gone":
        state.unlink()
    else:
        (state.parent / "run.json").write_text('{"step": "x"}')
    with pytest.raises(BadCheckpoint, match="to begin anew"):
        heal(ordered(swa, tmp_path / "healed", LONG))
    assert not (tmp_path / "healed").exists()


def test_minutes_become_steps_once(swa: Path, tmp_path: Path) -> None:
    """Asked again, as after a kill, the answer stays, so that the run is the same run."""
    order = ordered(swa, tmp_path / "healed")
    first = within(order, 0.05).healing.steps
    assert first >= 1
    assert within(order, 0.05).healing.steps == first
    assert within(order, 5.0).healing.steps > first
    with pytest.raises(BadConfig, match="--minutes -1"):
        within(order, -1)
