"""The budget search: what is tried, what a frontier is, and whole searches on a pico."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mom.cli import app
from slices import manifest
from slices.cut.pipeline import cut
from slices.cut.request import FfnRank, SliceRequest
from slices.errors import BadConfig, RunFailed, SliceError
from slices.estimate import Estimate
from slices.export import write_gguf
from slices.heal.settings import HealConfig
from slices.home import home
from slices.measure.heldout import cut_heldout
from slices.model_ref import open_model
from slices.quant.size import model_name
from slices.search.candidates import (
    SearchSpace,
    Structure,
    ffn_choices,
    largest_fitting,
    layer_choices,
    may_fit,
    vocab_choices,
)
from slices.search.frontier import Candidate, best, frontier
from slices.search.request import SearchRequest, cache_key
from slices.search.search import search
from slices.search.trial import request_for, try_structure
from tests.slices.gguf_fixtures import FULL, SLIDING, write_gemma3
from tests.slices.heal_fixtures import sentences

CUT = Structure("all", "400", "all")
FEW = SearchSpace(
    layers_removed=(1,), ffn_fractions=(0.5,), types=("Q8_0", "Q4_K_M"), embedding_types=(None,)
)
TEXT = sentences(40, 20)


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
    space = SearchSpace()
    assert vocab_choices(None, 50_000, space) == ["all", "46080", "32768", "24576"]
    assert vocab_choices("domain", 50_000, space) == ["domain"]
    assert layer_choices("auto", 18, space) == ["all", "auto:17", "auto:16"]
    assert layer_choices("swa", 18, space) == ["swa"]
    assert ffn_choices(None, 2048, space) == ["all", "1536", "1024"]
    assert ffn_choices("512", 2048, space) == ["512"]
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
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXT.documents))
    return SliceRequest(
        domain="law", layers=layers, model=str(parent), corpus=(corpus,), output=tmp_path / "out"
    )


def order(
    slice_request: SliceRequest, budget: int = 10**9, healing: HealConfig | None = None
) -> SearchRequest:
    return SearchRequest(cut=slice_request, text=TEXT, budget=budget, healing=healing, threads=1)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two types are enough to search among."""
    monkeypatch.setattr("slices.search.candidates.SPACE", FEW)


@pytest.mark.usefixtures("few")
def test_a_search_finds_writes_and_records_the_best(tmp_path: Path) -> None:
    """The whole parent, quantized harder, is among the candidates; slice.json records them all."""
    slice_request = request(tmp_path)
    result = search(order(slice_request))
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
        search(order(slice_request))
    assert not slice_request.target.exists()
    search(order(slice_request))
    assert seen[1] == seen[2]  # the one that was not finished; the first is not tried again
    assert seen[0] not in seen[1:]


@pytest.mark.usefixtures("few")
def test_searches_with_other_layers_give_their_own_structures(tmp_path: Path) -> None:
    """Of the same model, text and budget, in the same home."""
    first = search(order(request(tmp_path, "drop:0")))
    second = search(order(replace(request(tmp_path, "drop:1"), force=True)))
    assert [file.suffix for file in (home() / "search").iterdir()] == [".json", ".json"]
    for layers, result in (("drop:0", first), ("drop:1", second)):
        tried = {each.structure.layers for each in result.candidates}
        assert tried == {"all", layers}


def test_the_key_holds_every_option(tmp_path: Path) -> None:
    plain = order(request(tmp_path))
    cut_options: list[dict[str, Any]] = [
        {"layers": "swa"}, {"name": "another"}, {"domain": "biochem"}, {"corpus": ()}, {"seed": 1},
        {"ffn_rank": FfnRank.RANDOM}, {"repair": True}, {"portable": True},
    ]  # fmt: skip
    options: list[dict[str, Any]] = [
        *({"cut": replace(plain.cut, **each)} for each in cut_options),
        {"budget": 1}, {"vocab": "all"}, {"vocab": "400"}, {"ffn": "all"}, {"space": FEW},
        {"text": sentences(41, 20)}, {"healing": HealConfig(steps=3)}, {"healing": HealConfig(steps=4)},
        {"healing": HealConfig(steps=3, lr=1e-3)},
    ]  # fmt: skip
    checkpoint = open_model(plain.cut.model)
    heldout = cut_heldout(TEXT.documents)
    requests = [plain, *(replace(plain, **each) for each in options)]
    keys = [json.dumps(cache_key(each, checkpoint, heldout), sort_keys=True) for each in requests]
    keys.append(json.dumps(cache_key(plain, checkpoint, cut_heldout(TEXT.documents, 500))))
    assert len(set(keys)) == len(requests) + 1


@pytest.mark.usefixtures("few")
def test_a_budget_below_everything_names_the_smallest(tmp_path: Path) -> None:
    slice_request = request(tmp_path, "all")
    with pytest.raises(RunFailed, match=r"--budget 1,000 bytes: nothing fits; the smallest .* takes \d"):
        search(order(slice_request, budget=1000))
    assert not slice_request.target.exists()


@pytest.mark.usefixtures("few")
def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    slice_request = request(tmp_path, "all")
    with pytest.raises(RunFailed):
        search(order(slice_request, budget=1000))
    (file,) = (home() / "search").glob("*.json")
    file.write_text('{"schema": 3, "parent": null, "structures": [{}]}')
    with pytest.raises(BadConfig, match="damaged"):
        search(order(slice_request, budget=1000))
    file.write_text('{"parent": null, "structures": []}')
    with pytest.raises(BadConfig, match="expected schema 3, found 1"):
        search(order(slice_request, budget=1000))


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
    planned = json.loads(run(*words, "--dry-run", "--heal-steps", "3", "--json"))
    assert planned["heal_steps"] == 3
    assert not (tmp_path / "out").exists()
    figures = json.loads(run(*words, "--json"))
    assert figures["gguf_bytes"] <= 100_000_000
    assert figures["chosen"] in {each["label"] for each in figures["candidates"]}
    found = figures["verdict"]
    assert found["verdict"] in ("alone", "unknown")
    few = "5 documents; a verdict needs at least 8" in found["sentence"]
    assert few == (found["verdict"] == "unknown")
    assert figures["heal_steps"] == 0
    with pytest.raises(BadConfig, match="--heal-steps 5: expected --budget"):
        run(*words[:-4], "--heal-steps", "5")
    refused = CliRunner().invoke(app, ["slice", "--domain", "law", *words, "--budget", "ten", "--force"])
    assert refused.exit_code == 2 and "'ten': expected a size" in refused.output
