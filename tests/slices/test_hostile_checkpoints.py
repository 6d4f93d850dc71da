"""Damaged and hostile checkpoints, and kills at any moment: a clear error or a right result."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mom.workflows.inspect import inspect
from slices import manifest
from slices.checkpoint import open_checkpoint
from slices.cut.pipeline import cut, plan_cut
from slices.cut.request import SliceRequest
from slices.errors import NotFound, SliceError
from tests.picos import write_gemma4
from tests.slices.mutations import mutated
from tests.slices.reference import assert_right

TYPES = (["sliding_attention"] * 2 + ["full_attention"]) * 3
CUTS = [("all", "all"), ("0-5", "all"), ("0,1,3-5,7", "all"), ("swa", "430"), ("all", "domain")]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine layers, the last three of which share K/V."""
    folder = tmp_path_factory.mktemp("good") / "model"
    write_gemma4(folder, TYPES, num_kv_shared_layers=3, hidden_size=16, intermediate_size=16)
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 5], "bos_token_id": 2}')
    return folder


def survive(good: Path, folder: Path, seed: int) -> str:
    """Inspect and slice a mutated checkpoint: the outcome, with what was changed. Anything else fails."""
    what = mutated(good, folder / "in", seed)
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog.")
    layers, vocab = CUTS[seed % len(CUTS)]
    out = folder / "out"
    request = SliceRequest(
        domain="law",
        layers=layers,
        model=str(folder / "in"),
        vocab=vocab,
        corpus=(folder / "text.txt",),
        output=out,
    )
    started = time.monotonic()
    try:
        inspect(str(folder / "in"))
        _, plan, _ = plan_cut(request)
        made = cut(request)
    except SliceError as error:
        assert not [path.name for path in folder.iterdir() if "out" in path.name], what
        assert str(error).strip(), what
        return "refused"
    finally:
        assert time.monotonic() - started < 5, what
    assert made == manifest.read(out), what
    assert made.bytes == plan.nbytes, what
    assert_right(plan, out)
    open_checkpoint(out)
    return "right"


def survive_all(good: Path, tmp_path: Path, seeds: range) -> dict[str, int]:
    outcomes: dict[str, int] = {}
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            outcome = survive(good, folder, seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        shutil.rmtree(folder)
    return outcomes


def test_the_unharmed_checkpoint_is_sliced(good: Path, tmp_path: Path) -> None:
    for number, (layers, vocab) in enumerate(CUTS):
        (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog.")
        request = SliceRequest(
            domain="law",
            layers=layers,
            model=str(good),
            vocab=vocab,
            corpus=(tmp_path / "text.txt",),
            output=tmp_path / f"out{number}",
        )
        _, plan, _ = plan_cut(request)
        assert cut(request).bytes == plan.nbytes
        assert_right(plan, tmp_path / f"out{number}")


def test_mutated_checkpoints(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 of them; some mutations harm nothing that is read, so both outcomes must occur."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    outcomes = survive_all(good, tmp_path, range(200))
    assert set(outcomes) == {"refused", "right"}, outcomes


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_2000_mutated_checkpoints(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    outcomes = survive_all(good, tmp_path, range(1000, 3000))
    with capsys.disabled():
        print(f"\n2,000 mutated checkpoints: {outcomes}")


def cut_of(folder: Path) -> manifest.Manifest:
    """A slice's manifest without its times, and without the verdict, which is added to a finished slice."""
    made = manifest.read(folder)
    return made.model_copy(update={"created": "", "verdicts": [], "recipe": {**made.recipe, "seconds": 0}})


def kill_often(model: Path, tmp_path: Path, kills: int) -> tuple[int, int]:
    """Kill `mom slice` at random moments of its life; returns how often it was killed and had finished."""
    chance, out = random.Random(7), tmp_path / "made"
    command = [sys.executable, "-m", "mom", "slice", "--domain", "law", "--layers", "swa"]
    command += ["--model", str(model), "-o", str(out), "--json"]
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    life, killed, finished = time.monotonic() - started, 0, 0
    whole = cut_of(out)
    shutil.rmtree(out)
    for _ in range(kills):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(life * (0.4 + 0.7 * chance.random()))
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
        if out.exists():
            assert cut_of(out) == whole
            open_checkpoint(out)
            finished += 1
            shutil.rmtree(out)
        else:
            with pytest.raises(NotFound):
                manifest.find(str(out))
    subprocess.run(command, check=True, capture_output=True)
    assert [path.name for path in tmp_path.iterdir() if "made" in path.name] == ["made"]
    return killed, finished


def test_kills_leave_nothing_that_looks_complete(pico_e4b: Path, tmp_path: Path) -> None:
    killed, _ = kill_often(pico_e4b, tmp_path, 5)
    assert killed


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_50_kills(pico_e4b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed, finished = kill_often(pico_e4b, tmp_path, 50)
    with capsys.disabled():
        print(f"\n50 kills: {killed} hit a running process, {finished} found a finished slice")
    assert killed > 25


def test_what_a_killed_replacement_set_aside_is_given_back(pico_gemma3: Path, tmp_path: Path) -> None:
    """Killed between the two renames of --force, the old slice waits under a hidden name."""
    request = SliceRequest(domain="law", layers="0-3", model=str(pico_gemma3), output=tmp_path / "out")
    made = cut(request)
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    (tmp_path / "out").rename(tmp_path / f".out.old-{dead.stdout.strip()}")
    (tmp_path / f".out.partial-{dead.stdout.strip()}").mkdir()
    with pytest.raises(SliceError, match="already exists"):
        cut(request)
    assert manifest.read(tmp_path / "out") == made
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
