"""`mom heal` as a user types it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mom.cli import app
from slices import manifest
from slices.errors import SliceError
from tests.slices.heal_fixtures import parent_gemma4, sentences, slice_of

FEW = ["--steps", "40", "--context", "32", "--batch", "4", "--rate", "0.01", "--hard", "0"]
FEW += ["--threads", "1"]


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences().documents))
    return str(file)


@pytest.fixture
def slice_(mom_home: Path, tmp_path: Path) -> str:
    slice_of(parent_gemma4(tmp_path / "parent"), mom_home / "slices" / "swa", "swa")
    return "swa"


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["heal", *arguments])
    if isinstance(done.exception, SliceError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_json_picture_and_a_slice_by_the_default_name(
    slice_: str, corpus: str, mom_home: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "curve.svg"
    figures = json.loads(run(slice_, *FEW, "--corpus", corpus, "--json", "--picture", str(picture)))
    assert figures["path"] == str(mom_home / "slices" / "swa-healed")
    assert figures["after"]["kl"]["value"] < figures["before"]["kl"]["value"]
    assert (figures["steps"], figures["tokens"], figures["failed"]) == (40, 40 * 4 * 32, False)
    assert manifest.read(Path(figures["path"])).healing is not None
    assert "<svg" in picture.read_text()


def test_the_table_shows_before_and_after(slice_: str, corpus: str) -> None:
    shown = run(slice_, *FEW, "--corpus", corpus, "--method", "norms")
    assert "before" in shown
    assert "after" in shown
    assert "step 40 of 40" in shown


def test_a_teacher_can_be_saved_and_used(slice_: str, corpus: str, tmp_path: Path) -> None:
    file = str(tmp_path / "teacher.safetensors")
    told = json.loads(run(slice_, *FEW, "--corpus", corpus, "--save-teacher", file, "--top-k", "8", "--json"))
    assert told["bytes"] == Path(file).stat().st_size
    figures = json.loads(run(slice_, *FEW, "--corpus", corpus, "--teacher", file, "--json"))
    assert figures["after"]["kl"]["value"] < figures["before"]["kl"]["value"]


def test_the_slice_itself_is_never_the_target(slice_: str, corpus: str, mom_home: Path) -> None:
    with pytest.raises(SliceError, match="is the slice itself"):
        run(slice_, *FEW, "--corpus", corpus, "-o", str(mom_home / "slices" / "swa"), "--force")


def test_settings_are_checked_first(slice_: str) -> None:
    with pytest.raises(SliceError, match="--method magic: expected norms, lora, full"):
        run(slice_, "--method", "magic")
