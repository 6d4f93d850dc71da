"""What judges a router, on cases known by hand; queries from files; the page."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from mom.workflows.route import show_measured, write_page
from router.errors import BadTraining
from router.routing.cascade import Cascade
from router.training.dataset import PIECE, read_answers, read_hints, read_queries
from router.training.evaluate import evaluate
from router.training.metrics import auroc, calibration_error, coverage, recall_at, reliability
from tests.router.router_world import PAIRS


def test_auroc_and_ece_on_known_cases() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.1])
    high = np.array([True, True, False, False])
    assert auroc(scores, high, ~high) == pytest.approx(0.875)  # one tie among four pairs
    assert auroc(scores, high, np.zeros(4, bool)) is None
    assert calibration_error(np.full(10, 0.75), np.arange(10) < 5) == pytest.approx(0.25)


def test_recall_at_an_acceptance() -> None:
    """What lets three of four pass lies between 0.3 and 0.4, at 0.375; three of four others are below."""
    scores = np.array([0.3, 0.4, 0.8, 0.9, 0.1, 0.2, 0.35, 0.7])
    high = np.arange(8) < 4
    assert recall_at(scores, high, ~high, 0.75) == 0.75
    assert recall_at(scores, high, np.zeros(8, bool), 0.75) is None


def test_the_surest_come_first() -> None:
    sure, right = np.arange(10) / 10, np.arange(10) >= 5
    assert [point["accuracy"] for point in coverage(sure, right)][::3] == [1.0, 1.0, 5 / 7, 0.5]
    bins = reliability(sure, right, bins=2)
    assert [(each["n"], each["accuracy"]) for each in bins] == [(5, 0.0), (5, 1.0)]
    assert [each["confidence"] for each in bins] == pytest.approx([0.2, 0.7])


def test_queries_are_read_from_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"query": "a\u2028b", "domain": "law"}\n\n{"query": "c", "domain": null}\n', "utf-8")
    assert read_queries(path) == [("a\u2028b", "law")]
    for bad in ("{", "[]", '{"query": 3, "domain": "law"}'):
        path.write_text(f'{{"query": "a", "domain": "law"}}\n{bad}\n')
        with pytest.raises(BadTraining, match="line 2"):
            read_queries(path)
    with pytest.raises(BadTraining, match="cannot read"):
        read_queries(tmp_path / "none.jsonl")


def test_choices_are_read_beside_their_questions(tmp_path: Path) -> None:
    lines = [
        {"question": "a", "domain": "law", "choices": ["the first amendment", 14]},
        {"question": "b", "domain": "law", "choices": ["yes", "no"]},
        {"question": "c", "domain": "law", "choices": "not a list, and so none of them"},
        {"question": "d", "domain": None, "choices": ["unlabelled", "and so left out"]},
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_answers(path) == {"a": "the first amendment 14"}
    assert [text for text, _ in read_queries(path)] == ["a", "b", "c"]


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    (tmp_path / "routing").mkdir()
    (tmp_path / "questions").mkdir()
    (tmp_path / "routing" / "b.jsonl").write_text('{"query": "b", "domain": "law"}\n')
    (tmp_path / "questions" / "a.jsonl").write_text('{"question": "a", "domain": "math"}\n')
    assert read_queries(tmp_path) == [("a", "math"), ("b", "law")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadTraining, match=r"holds no \.jsonl files"):
        read_queries(tmp_path / "empty")


def test_hints_are_pieces_of_a_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "corpora" / "law"
    folder.mkdir(parents=True)
    texts = ["a" * 1000, "b" * 50, "c" * 3000]
    (folder / "calibration.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    found = read_hints(tmp_path, {"law", "music"}, each=200)
    assert len(found) == 200 and {domain for _, domain in found} == {"law"}
    assert all(
        len(set(text)) == 1 and len(text) == min(PIECE, 50 if text[0] == "b" else PIECE) for text, _ in found
    )
    shares = {letter: sum(text[0] == letter for text, _ in found) / 200 for letter in "abc"}
    assert shares["c"] > shares["a"] > shares["b"]
    assert found == read_hints(tmp_path, {"law"}, each=200)
    assert read_hints(tmp_path, {"music"}) == []


def test_evaluation_counts_what_it_leaves_out(reader: Cascade) -> None:
    report = evaluate([*PAIRS, ("zzzz qqqq", "ood"), ("x", "music")], reader.router, reader)
    assert (report.n, report.skipped) == (len(PAIRS) + 1, 1)
    assert report.accuracy == 1.0
    assert report.ood_recall == 1.0
    assert report.accepted == 1.0
    assert report.decided_by == {"hash-256": 1.0}
    assert set(report.per_domain) == {"biochem", "law", "computing", "general"}
    assert [point["coverage"] for point in report.coverage] == [share / 10 for share in range(1, 11)]
    with pytest.raises(BadTraining, match="no query"):
        evaluate([("x", "music")], reader.router, reader)


def test_noise_and_confusion_are_told(
    reader: Cascade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = evaluate([*PAIRS, ("<b>zzzz</b>", "ood")], reader.router, reader)
    assert set(report.survived) == {"typo", "case", "fragment", "wording"}
    assert report.survived["case"] > 0.5
    assert report.confusion["law"] == {"law": 6}
    assert evaluate([*PAIRS, ("<b>zzzz</b>", "ood")], reader.router, reader).survived == report.survived
    assert report.ood_recall_at_95 == 1.0
    write_page(report, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert html.count("<svg") == 3
    assert not re.search(r"<(script|link rel=.stylesheet|img)", html)
    json.dumps(asdict(report))
    show_measured(report)
    assert "decisions that survive: typo" in capsys.readouterr().out
