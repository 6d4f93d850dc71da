"""`mom inspect --domain` and `mom slice --layers auto:N` as a user types them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mom.cli import app
from slices.errors import SliceError
from tests.slices.heal_fixtures import parent_gemma4, sentences


@pytest.fixture
def parent(tmp_path: Path) -> str:
    return str(parent_gemma4(tmp_path / "parent"))


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences().documents))
    return str(file)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    if isinstance(done.exception, SliceError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_scores_as_json_table_and_plot(parent: str, corpus: str, tmp_path: Path) -> None:
    asked = ["inspect", parent, "--domain", "biochem", "--corpus", corpus]
    scores = json.loads(run(*asked, "--json", "--plot", str(tmp_path / "layers.svg")))["scores"]
    assert [each["layer"] for each in scores["layers"]] == list(range(6))
    assert [each["removable"] for each in scores["layers"]] == [True, False, False, True, True, True]
    assert [each.get("donor") for each in scores["layers"]] == [None, None, None, 1, 1, 2]
    assert scores["tokens"]["covered"]["1024"] == 1
    assert "<svg" in (tmp_path / "layers.svg").read_text()
    shown = run(*asked)
    assert "5 full, K/V of 2" in shown
    assert "removable" in shown


def test_a_plot_of_another_format_is_refused_first(parent: str, corpus: str) -> None:
    with pytest.raises(SliceError, match=r"x\.gif: expected a name that ends in \.svg or \.png"):
        run("inspect", parent, "--domain", "biochem", "--corpus", corpus, "--plot", "x.gif")


def test_layers_are_chosen_by_the_text(parent: str, corpus: str, tmp_path: Path) -> None:
    asked = ["slice", "--domain", "biochem", "--layers", "auto:4", "--model", parent, "--corpus", corpus]
    planned = json.loads(run(*asked, "--dry-run", "--json"))
    made = json.loads(run(*asked, "--json", "-o", str(tmp_path / "out")))
    assert planned["layers"] == made["layers"]
    assert len(made["layers"]) == 4
    gone = {each["layer"] for each in made["removed"]}
    assert gone == set(range(6)) - set(made["layers"])
