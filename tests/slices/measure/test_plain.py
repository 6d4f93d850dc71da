"""Plain quants of a pico: measured once, resumed, and cached by text and importance matrix."""

import json
from pathlib import Path

import pytest

from slices.errors import BadConfig
from slices.home import home
from slices.measure import plain
from slices.measure.heldout import Heldout, cut_heldout
from slices.measure.plain import bf16_export, cache_file, count_missing, plain_quants
from slices.measure.plain_imatrix import cached_imatrix, plain_imatrix
from slices.measure.plain_sizes import PlainType
from tests.slices.gguf_fixtures import SLIDING, write_gemma3
from tests.slices.heal_fixtures import sentences

Q8, Q4, IQ4 = (
    PlainType("Q8_0", "llama.cpp"),
    PlainType("Q4_K_M", "Q4_K", True),
    PlainType("IQ4_NL", "llama.cpp", True),
)
DOCUMENTS = list(sentences(6, 20).documents)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return write_gemma3(tmp_path / "parent", [SLIDING] * 2)


def text() -> Heldout:
    return cut_heldout(DOCUMENTS)


def test_plain_quants_are_measured_once_and_say_which_they_are(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imatrix = plain_imatrix(parent, DOCUMENTS)
    stages: list[tuple[str, int, int]] = []
    with bf16_export(parent) as export:
        first = plain_quants(parent, text(), [Q8, IQ4], export, imatrix, 1, lambda *each: stages.append(each))
        assert [each.kind for each in first] == [Q8, IQ4]
        assert stages[0] == ("plain quant 1 of 2: Q8_0", 0, 2)
        assert "IQ4_NL, imatrix" in stages[1][0]
        assert count_missing(parent, text(), [Q8, Q4, IQ4], imatrix) == 1
        monkeypatch.setattr(plain, "quantize", None)
        assert plain_quants(parent, text(), [IQ4, Q8], export, imatrix, 1) == first[::-1]
    assert not list((home() / "plain").glob(".scratch*"))


def test_a_killed_run_resumes_where_it_was(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = plain._measure_quant
    made: list[PlainType] = []

    def dies_at_the_second(parent: Path, exported: Path, each: PlainType, *rest: object) -> object:
        if made:
            raise KeyboardInterrupt
        made.append(each)
        return measure(parent, exported, each, *rest)  # type: ignore[arg-type]

    kinds = [Q8, PlainType("Q4_K_M", "llama.cpp")]
    monkeypatch.setattr(plain, "_measure_quant", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt), bf16_export(parent) as export:
        plain_quants(parent, text(), kinds, export, threads=1)
    assert count_missing(parent, text(), kinds, None) == 1
    assert not list((home() / "plain").glob(".scratch*"))


def test_the_importance_matrix_is_measured_once_and_changes_a_quant(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plain_imatrix(parent, []) is None
    assert cached_imatrix(parent, DOCUMENTS) is None
    found = plain_imatrix(parent, DOCUMENTS)
    assert found is not None
    monkeypatch.setattr("slices.measure.plain_imatrix.collect", None)
    again = plain_imatrix(parent, DOCUMENTS)
    assert again is not None and again.values.keys() == found.values.keys()
    assert cache_file(parent, text(), found) == cache_file(parent, text(), again)
    assert cache_file(parent, text(), found) != cache_file(parent, text(), None)
    without = PlainType("Q4_K_M", "Q4_K")
    with bf16_export(parent) as export:
        weighed, even = plain_quants(parent, text(), [Q4, without], export, found, 1)
    assert weighed.bits != even.bits


def test_damaged_figures_are_named_and_those_of_another_version_measured_again(parent: Path) -> None:
    with bf16_export(parent) as export:
        first = plain_quants(parent, text(), [Q8], export, threads=1)
        file = cache_file(parent, text(), None)
        stored = json.loads(file.read_text())
        for damage in (
            "{",
            json.dumps(stored | {"text": "x"}),
            json.dumps(stored | {"quants": [{"kind": 1}]}),
        ):
            file.write_text(damage)
            with pytest.raises(BadConfig, match="delete the file"):
                plain_quants(parent, text(), [Q8], export, threads=1)
        for old in (stored | {"version": 1}, {"text": stored["text"], "quants": []}):
            file.write_text(json.dumps(old))
            assert plain_quants(parent, text(), [Q8], export, threads=1) == first
