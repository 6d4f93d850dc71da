"""`mom heal` as a user types it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mom.cli import app
from slices import manifest
from slices.errors import SliceError
from slices.text.corpus import Part, part_of
from tests.mom.line import parsed
from tests.slices.heal_fixtures import parent_gemma4, sentences, slice_of, write_data

FEW = ["--steps", "40", "--row-tokens", "32", "--batch", "4", "--lr", "0.01", "--hard-label-weight", "0"]
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


def test_json_plot_and_a_slice_by_the_default_name(
    slice_: str, corpus: str, mom_home: Path, tmp_path: Path
) -> None:
    plot = tmp_path / "curve.svg"
    figures = json.loads(run(slice_, *FEW, "--corpus", corpus, "--json", "--plot", str(plot)))
    assert figures["path"] == str(mom_home / "slices" / "swa-healed")
    assert figures["after"]["kl"]["value"] < figures["before"]["kl"]["value"]
    assert (figures["steps"], figures["tokens"], figures["failed"]) == (40, 40 * 4 * 32, False)
    assert manifest.read(Path(figures["path"])).healing is not None
    assert "<svg" in plot.read_text()


def test_the_table_shows_before_and_after(slice_: str, corpus: str) -> None:
    shown = run(slice_, *FEW, "--corpus", corpus, "--method", "norms")
    assert "before" in shown
    assert "after" in shown
    assert "step 40 of 40" in shown


def test_a_teacher_can_be_saved_and_used(slice_: str, corpus: str, tmp_path: Path) -> None:
    file = str(tmp_path / "teacher.safetensors")
    few = [*FEW, "--corpus", corpus, "--json"]
    figures = json.loads(run(slice_, *few, "--save-teacher", file, "--top-k", "8"))
    assert figures["bytes"] == Path(file).stat().st_size
    figures = json.loads(run(slice_, *few, "--teacher", file))
    assert figures["after"]["kl"]["value"] < figures["before"]["kl"]["value"]


def test_a_control_is_a_row_of_its_own(slice_: str, corpus: str, mom_home: Path, tmp_path: Path) -> None:
    """A second call takes what is finished; `mom eval` adds the control, and says where there is none."""
    few = [*FEW, "--corpus", corpus, "--hard-label-weight", "0.5", "--lr", "0.003", "--json"]
    healed = json.loads(run(slice_, *few))
    assert healed["control"] is None
    data = str(write_data(tmp_path / "data", ["biochem"]))
    alone = evaluated("swa-healed", "--data", data)["slices"]
    assert list(alone) == ["parent", "swa-healed"]
    assert alone["swa-healed"]["control"]["reason"].startswith("no control: mom heal --control")
    again = json.loads(run(slice_, *few, "--control"))
    assert again["after"] == healed["after"]
    control = again["control"]
    assert control["folder"] == str(mom_home / "slices" / ".controls" / "swa-healed-control")
    assert control["after"]["bits_per_byte"]["value"] < control["before"]["bits_per_byte"]["value"]
    found = evaluated("swa-healed", "--data", data)["slices"]
    assert list(found) == ["parent", "swa-healed", "swa-healed-control"]
    assert found["parent"]["control"] is found["swa-healed-control"]["control"] is None
    compared = found["swa-healed"]["control"]
    assert (compared["control"], compared["reason"]) == ("swa-healed-control", None)
    bits = {name: each["domains"]["biochem"]["bits_per_byte"]["value"] for name, each in found.items()}
    expected = bits["swa-healed"] - bits["swa-healed-control"]
    assert compared["bits_per_byte"]["biochem"]["value"] == pytest.approx(expected, abs=1e-6)


def evaluated(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["eval", *arguments, "--compare", "never", "--json", "-"])
    assert done.exit_code == 0, done.output
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def test_the_slice_itself_is_never_the_target(slice_: str, corpus: str, mom_home: Path) -> None:
    with pytest.raises(SliceError, match="is the slice itself"):
        run(slice_, *FEW, "--corpus", corpus, "-o", str(mom_home / "slices" / "swa"), "--force")


@pytest.mark.parametrize(
    ("option", "choices"), [("--method", "'norms', 'lora', 'full'"), ("--device", "'auto', 'cpu', 'cuda'")]
)
def test_a_bad_choice_is_a_usage_error(option: str, choices: str, slice_: str) -> None:
    done = CliRunner().invoke(app, ["heal", slice_, option, "magic"], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert f"'magic' is not one of {choices}" in done.output


def test_settings_are_checked_first(slice_: str) -> None:
    with pytest.raises(SliceError, match=r"--hard-label-weight 2\.0: expected a number from 0 to 1"):
        run(slice_, "--hard-label-weight", "2")


def held_out(document: str) -> str:
    """The document with a suffix by which the held-out split takes it."""
    return next(text for n in range(1000) if part_of(text := f"{document} {n}") == Part.VERDICT)


@pytest.mark.parametrize(("count", "taken"), [(1, "the only document"), (2, "all 2 documents")])
def test_a_corpus_that_is_all_held_out_is_refused(
    count: int, taken: str, slice_: str, tmp_path: Path
) -> None:
    """It once said that the text has 0 tokens."""
    texts = [held_out(text) for text in sentences(count).documents]
    file = tmp_path / "few.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    message = f"the held-out split .* took {taken} of the text .* needs at least two documents"
    with pytest.raises(SliceError, match=message):
        run(slice_, *FEW, "--corpus", str(file))


def test_a_slice_is_quantized_as_it_was_healed_for(slice_: str, corpus: str, mom_home: Path) -> None:
    """Type, embeddings and importance matrix are the default of `mom quantize`, which says so."""
    figures = json.loads(
        run(slice_, *FEW, "--corpus", corpus, "--qat", "Q2_K", "--imatrix", "domain", "--json")
    )
    assert figures["quantization"]["type"] == "Q2_K"
    assert figures["quantization"]["interval"] == 8
    healed = str(mom_home / "slices" / "swa-healed")
    planned = parsed("quantize", healed, "--dry-run", "--json")
    made = parsed("quantize", healed, "--compare", "never", "--json")
    assert made["type"] == planned["type"] == "Q2_K"
    assert made["bytes"] == planned["bytes"]
    assert made["imatrix"]["sha256"] == figures["quantization"]["imatrix_sha256"]
    assert made["imatrix"]["file"].endswith("imatrix-qat.gguf")
    assert any("as the slice was healed for: Q2_K, embeddings Q4_K" in note for note in made["notes"])
    other = parsed("quantize", healed, "--type", "Q8_0", "--compare", "never", "--json")
    assert any("another recipe than the slice was healed for" in note for note in other["notes"])
