"""The budget search: what is tried, what a frontier is, and whole searches on a pico."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mom.cli import app
from slices import manifest
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.errors import BadConfig, RunFailed, SliceError
from slices.estimate import Estimate
from slices.export import write_gguf
from slices.home import home
from slices.quant.size import model_name
from slices.search.candidates import (
    Structure,
    ffn_choices,
    largest_fitting,
    layer_choices,
    may_fit,
    vocab_choices,
)
from slices.search.frontier import Candidate, best, frontier
from slices.search.search import search
from slices.search.trial import request_for, try_structure
from tests.slices.gguf_fixtures import FULL, SLIDING, write_gemma3
from tests.slices.heal_fixtures import sentences

CUT = Structure("all", "400", "all")


def candidate(nbytes: int, bits: float) -> Candidate:
    value = Estimate(bits, 0.01)
    return Candidate(
        structure=CUT,
        type=f"Q{nbytes}",
        embedding_type=None,
        bytes=nbytes,
        bits_per_byte=value,
        bits_over_parent=value,
        kl=value,
        lost_mass=None,
    )


FILES = st.lists(st.builds(candidate, st.integers(1, 50), st.sampled_from([0.5, 1.0, 1.5, 2.0])), min_size=1)


@given(FILES, st.integers(1, 60))
def test_frontier_and_best(files: list[Candidate], budget: int) -> None:
    """On it are exactly those that nothing smaller or equal beats; the best in a budget is on it."""
    found = frontier(files)
    for each in files:
        beaten = any(
            other.bytes <= each.bytes and other.bits_per_byte.value < each.bits_per_byte.value
            for other in files
        )
        assert beaten or any(
            on.bits_per_byte == each.bits_per_byte and on.bytes <= each.bytes for on in found
        )
    assert all(
        a.bytes < b.bytes and a.bits_per_byte.value > b.bits_per_byte.value for a, b in pairwise(found)
    )
    chosen = best(files, budget)
    fitting = [each for each in files if each.bytes <= budget]
    assert (chosen is None) == (not fitting)
    assert chosen is None or chosen.bits_per_byte.value == min(each.bits_per_byte.value for each in fitting)
    assert chosen is None or chosen in found or any(on.bytes == chosen.bytes for on in found)


def test_choices() -> None:
    assert vocab_choices(None, 50_000) == ["all", "46080", "32768", "24576"]
    assert vocab_choices("domain", 50_000) == ["domain"]
    assert layer_choices("auto", 18) == ["all", "auto:17", "auto:16"]
    assert layer_choices("swa", 18) == ["swa"]
    assert ffn_choices(None, 2048) == ["all", "1536", "1024"]
    assert ffn_choices("512", 2048) == ["512"]
    assert largest_fitting([("A", None, 5), ("B", None, 9), ("C", "Q4_K", 7), ("D", None, 6)], 8) == [
        ("C", "Q4_K"),
        ("D", None),
    ]
    assert may_fit(160, 25)
    assert not may_fit(160, 24)


def request(tmp_path: Path, layers: str = "auto") -> SliceRequest:
    parent = tmp_path / "parent"
    if not parent.is_dir():
        write_gemma3(parent, [SLIDING, SLIDING, FULL, SLIDING])
    corpus = tmp_path / "text.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences(40, 20).documents))
    return SliceRequest(
        domain="law", layers=layers, model=str(parent), corpus=(corpus,), output=tmp_path / "out"
    )


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two types are enough to search among."""
    monkeypatch.setattr("slices.search.trial.TYPES", ("Q8_0", "Q4_K_M"))
    monkeypatch.setattr("slices.search.trial.EMBEDDING_TYPES", (None,))
    monkeypatch.setattr("slices.search.candidates.FFN_FRACTIONS", (0.5,))
    monkeypatch.setattr("slices.search.candidates.LAYERS_REMOVED", (1,))


@pytest.mark.usefixtures("few")
def test_a_search_finds_writes_and_records_the_best(tmp_path: Path) -> None:
    """The whole parent, quantized harder, is among the candidates; slice.json records them all."""
    slice_request = request(tmp_path)
    result = search(slice_request, sentences(40, 20), 10**9, threads=1)
    assert {str(each.structure) for each in result.candidates} >= {"nothing cut", "layers auto:3", "ffn 256"}
    assert result.chosen == best(result.candidates, 10**9)
    made = manifest.read(slice_request.target)
    assert made.search is not None
    assert made.search["chosen"] == result.chosen.label
    assert len(made.search["candidates"]) == len(result.candidates)
    (file,) = made.quantized
    assert (file.file, file.bytes, file.type) == (result.gguf.name, result.chosen.bytes, result.chosen.type)
    assert not list((home() / "search").glob(".scratch*"))


def test_a_trial_has_the_headers_of_the_final_file(tmp_path: Path) -> None:
    """To the byte, whatever the lengths of the slice's name, of its folder's and of the scratch folder's."""
    parent = request(tmp_path, "all")
    for length in (1, 17, 64):
        named = replace(parent, name="n" * length, output=tmp_path / f"folder-{length}", vocab="400")
        trial = cut(request_for(named, CUT, tmp_path / str(length) / "slice"))
        assert trial.name == cut(named).name
        assert headers(tmp_path / str(length) / "slice") == headers(named.target)


def headers(folder: Path) -> bytes:
    """The BF16 GGUF of a slice without its weights."""
    path = folder.parent / "headers.gguf"
    write_gguf(folder, path, model_name(folder), data=False)
    return path.read_bytes()


@pytest.mark.usefixtures("few")
def test_a_killed_search_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slice_request, real, seen = request(tmp_path, "all"), try_structure, list[Structure]()

    def dies_at_the_second(structure: Structure, context: object) -> object:
        seen.append(structure)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(structure, context)  # type: ignore[arg-type]

    monkeypatch.setattr("slices.search.search.try_structure", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        search(slice_request, sentences(40, 20), 10**9, threads=1)
    assert not slice_request.target.exists()
    search(slice_request, sentences(40, 20), 10**9, threads=1)
    assert seen[1] == seen[2]  # the one that was not finished; the first is not tried again
    assert seen[0] not in seen[1:]


@pytest.mark.usefixtures("few")
def test_a_budget_below_everything_names_the_smallest(tmp_path: Path) -> None:
    slice_request = request(tmp_path, "all")
    with pytest.raises(RunFailed, match=r"--budget 1,000 bytes: nothing fits; the smallest .* takes \d"):
        search(slice_request, sentences(40, 20), 1000, threads=1)
    assert not slice_request.target.exists()


@pytest.mark.usefixtures("few")
def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    slice_request = request(tmp_path, "all")
    with pytest.raises(RunFailed):
        search(slice_request, sentences(40, 20), 1000, threads=1)
    (file,) = (home() / "search").glob("*.json")
    file.write_text('{"schema": 2, "parent": null, "structures": [{}]}')
    with pytest.raises(BadConfig, match="damaged"):
        search(slice_request, sentences(40, 20), 1000, threads=1)
    file.write_text('{"parent": null, "structures": []}')
    with pytest.raises(BadConfig, match="expected schema 2, found 1"):
        search(slice_request, sentences(40, 20), 1000, threads=1)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["slice", "--domain", "law", *arguments])
    if isinstance(done.exception, SliceError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.usefixtures("few")
def test_the_command_line(tmp_path: Path) -> None:
    slice_request = request(tmp_path)
    words = [
        "--layers",
        "all",
        "--vocab",
        "all",
        "--model",
        slice_request.model,
        "--corpus",
        str(slice_request.corpus[0]),
    ]
    words += ["--budget", "100MB", "-o", str(tmp_path / "out")]
    planned = json.loads(run(*words, "--dry-run", "--json"))
    assert [each["structure"] for each in planned["planned"]] == ["nothing cut", "ffn 256"]
    assert not (tmp_path / "out").exists()
    figures = json.loads(run(*words, "--json"))
    assert figures["gguf_bytes"] <= 100_000_000
    assert figures["chosen"] in {each["label"] for each in figures["candidates"]}
    assert figures["verdict"]["verdict"] in ("level", "better", "dominated")
    refused = CliRunner().invoke(app, ["slice", "--domain", "law", *words, "--budget", "ten", "--force"])
    assert refused.exit_code == 2 and "'ten': expected a size" in refused.output
