"""The peer and our router by the same measures, on hand-computed cases."""

from types import SimpleNamespace

import pytest

from benchmarks.routing.data import Query
from benchmarks.routing.run import routed_accuracies, routed_accuracy_of
from benchmarks.routing.semantic_router_peer import best_threshold
from benchmarks.tables.routing import SETS, quality_lines


def query(domain: str) -> Query:
    return Query("a", domain, "set", heldout=True)


def test_routed_accuracy_counts_the_generalist_as_an_answer() -> None:
    asked = [query("law"), query("law"), query("math"), query("general"), query("ood")]
    found = routed_accuracy_of(["law", None, "law", None, "math"], asked)
    assert (found["n"], found["value"]) == (5, 2 / 5)
    assert found["to_generalist"] == pytest.approx(1 / 3)
    assert found["wrong_expert"] == 2 / 5
    assert routed_accuracy_of([None], [query("ood")])["to_generalist"] is None


def test_biochem_and_medicine_are_both_right_where_a_set_lies_between_them() -> None:
    asked = [query("medicine"), query("medicine"), query("biochem")]
    experts = ["biochem", None, "medicine"]
    assert routed_accuracy_of(experts, asked, lenient=True)["value"] == pytest.approx(2 / 3)
    assert routed_accuracy_of(experts, asked)["value"] == 0
    sets = {"medquad_questions": [query("medicine")], "arena_hard": [query("medicine")]}
    found = routed_accuracies(["biochem", "biochem"], sets)
    assert [each["value"] for each in found.values()] == [1, 0]


def test_the_peers_threshold_is_the_most_accurate_on_labelled_texts() -> None:
    """Above .55 three of four are right, since the third has no route; without a threshold two."""
    confidences = {"a": 0.9, "b": 0.8, "c": 0.55, "d": 0.3}

    def router(text: str) -> SimpleNamespace:
        return SimpleNamespace(name="law", confidence=confidences[text])

    labelled: list[tuple[str, str | None]] = [("a", "law"), ("b", "law"), ("c", None), ("d", "math")]
    assert best_threshold(router, labelled) == pytest.approx(0.56)
    assert best_threshold(router, labelled[:2]) == 0.0


def test_routed_rows_stand_before_forced_choice() -> None:
    accuracy = {"n": 10, "value": 0.5, "stderr": 0.1}
    forced = {
        "accuracy": dict.fromkeys(SETS, accuracy),
        "ood": {"auroc": 0.9, "recall_at_95": 0.9},
        "ece": 0.1,
    }
    routed = forced | {"routed": dict.fromkeys((*SETS, "ood"), accuracy)}
    columns, lines = quality_lines({"ours": {"cascade": routed}, "peer": forced | {"version": "1"}})
    assert columns == ["", "mom", "semantic-router 1"]
    assert lines[0] == ["questions held back, routed, n = 10", "50.0% ± 10.0%", "-"]
    assert lines[6][0] == "out-of-domain queries, routed, n = 10"
    assert lines[7] == ["questions held back, n = 10", "50.0% ± 10.0%", "50.0% ± 10.0%"]
    only_forced = quality_lines({"ours": {"cascade": forced}})[1]
    assert not any("routed" in line[0] for line in only_forced)
