"""Searches that heal their candidates: what is measured, what is written, what is skipped."""

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from slices import manifest
from slices.checkpoint import open_checkpoint
from slices.heal.settings import HealConfig
from slices.home import home
from slices.search.candidates import SearchSpace, Structure
from slices.search.frontier import best
from slices.search.request import SearchRequest, healing_of
from slices.search.search import SearchResult, search
from tests.slices.search.test_search import TEXT, request

SPACE = SearchSpace(layers_removed=(), ffn_fractions=(0.5,), types=("Q8_0",), embedding_types=(None,))
HEALING = HealConfig(
    steps=6, row_tokens=32, lr=3e-3, hard_label_weight=0.5, warmup_steps=1, eval_every=3, compiled=False
)
HALF = Structure("drop:0", "all", "256")


def order(tmp_path: Path, healing: HealConfig = HEALING, name: str | None = None) -> SearchRequest:
    """A search among the parent and a cut of layers and neurons, whose budget leaves out the parent."""
    cut = replace(request(tmp_path, "drop:0"), name=name)
    return SearchRequest(
        cut=cut, text=TEXT, budget=10**9, vocab="all", ffn="256", healing=healing, space=SPACE, threads=1
    )


def weights(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted({e.file for e in open_checkpoint(folder).entries}))


def by_structure(result: SearchResult) -> list[tuple[str, int]]:
    return sorted((str(each.structure), each.heal_steps) for each in result.candidates)


def test_candidates_are_healed_and_the_parent_is_ranked_as_both(tmp_path: Path) -> None:
    result = search(order(tmp_path, name="a-name-of-its-own"))
    assert by_structure(result) == [("layers drop:0, ffn 256", 6), ("nothing cut", 0), ("nothing cut", 6)]
    assert "healed 6 steps" in result.candidates[-1].label
    chosen = best(result.candidates, 10**9)
    assert chosen == result.chosen
    assert chosen.heal_steps == 6
    made = manifest.read(result.target)
    assert made.name == "a-name-of-its-own"
    assert made.healing is not None
    assert made.healing["settings"]["steps"] == 6
    assert made.quantized[0].bytes == chosen.bytes == result.gguf.stat().st_size
    assert [use.step for use in made.texts if use.part == "selection"] == ["checkpoint", "search"]
    assert not list((home() / "search").glob("*-best"))


def test_the_weights_are_the_same_kept_or_healed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = search(order(tmp_path))
    monkeypatch.setenv("MOM_HOME", str(tmp_path / "another-home"))
    again = order(tmp_path)
    again = replace(again, cut=replace(again.cut, output=tmp_path / "again" / "out"))

    def dies(*arguments: object) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("slices.search.search._write_best", dies)
        with pytest.raises(KeyboardInterrupt):
            search(again)
    (folder,) = (home() / "search").glob("*-best")
    folder.rename(tmp_path / "lost")
    found = search(again)
    assert found.chosen == kept.chosen
    assert weights(found.target) == weights(kept.target) == weights(tmp_path / "lost")


def test_what_healing_does_not_improve_is_ranked_as_cut(tmp_path: Path) -> None:
    """A rate that destroys the weights: no checkpoint is better than the cut."""
    result = search(order(tmp_path, replace(HEALING, lr=1e3)))
    assert by_structure(result) == [("layers drop:0, ffn 256", 0), ("nothing cut", 0)]
    notes = {str(each.structure): each.note for each in result.candidates}
    assert notes == {
        "layers drop:0, ffn 256": "6 steps of healing made it no better",
        "nothing cut": "",
    }


def test_too_little_memory_skips_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slices.heal.memory_bound.available_memory", lambda: 1000)
    result = search(order(tmp_path))
    assert by_structure(result) == [("nothing cut", 0)]
    reasons = {each.label: each.reason for each in result.skipped}
    assert reasons.keys() == {"layers drop:0, ffn 256, healed 6 steps", "nothing cut, healed 6 steps"}
    assert all("healing may take" in reason for reason in reasons.values())


def test_the_options_of_a_healing() -> None:
    assert healing_of(0, 7) is None
    assert healing_of(50, 7) == HealConfig(steps=50, seed=7, compiled=False)
