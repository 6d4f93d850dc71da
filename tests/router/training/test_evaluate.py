"""Router metrics on hand-computed cases; queries from files; the report."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from mom.display.route_tables import show
from mom.workflows.route_eval import write_html
from router.embedding.embedder import HashEmbedder
from router.errors import BadTraining
from router.routing.cascade import Cascade, RoutePredictor
from router.routing.model import Router
from router.training.dataset import (
    OOD,
    SNIPPET_CHARS,
    LabelledQuery,
    read_choices,
    read_corpus_snippets,
    read_queries,
)
from router.training.evaluate import evaluate
from router.training.fit import fit
from router.training.html_report import page
from router.training.leave_one_out import leave_one_out
from router.training.metrics import auroc, coverage, expected_calibration_error, ood_recall_at, reliability
from slices.progress import no_progress
from tests.router.router_world import PAIRS


def test_auroc_and_ece_on_known_cases() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.1])
    positive = np.array([True, True, False, False])
    assert auroc(scores, positive, ~positive) == pytest.approx(0.875)  # one tie among four pairs
    assert auroc(scores, positive, np.zeros(4, bool)) is None
    assert expected_calibration_error(np.full(10, 0.75), np.arange(10) < 5) == pytest.approx(0.25)


def test_ood_recall_at_an_acceptance() -> None:
    """The threshold that accepts three of four is 0.375; three of the four others are below it."""
    scores = np.array([0.3, 0.4, 0.8, 0.9, 0.1, 0.2, 0.35, 0.7])
    in_domain = np.arange(8) < 4
    assert ood_recall_at(scores, in_domain, ~in_domain, 0.75) == 0.75
    assert ood_recall_at(scores, in_domain, np.zeros(8, bool), 0.75) is None


def test_the_most_confident_come_first() -> None:
    confidence, correct = np.arange(10) / 10, np.arange(10) >= 5
    assert [point["accuracy"] for point in coverage(confidence, correct)][::3] == [1.0, 1.0, 5 / 7, 0.5]
    bins = reliability(confidence, correct, bins=2)
    assert [(each["n"], each["accuracy"]) for each in bins] == [(5, 0.0), (5, 1.0)]
    assert [each["confidence"] for each in bins] == pytest.approx([0.2, 0.7])


def test_queries_are_read_from_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"query": "a\u2028b", "domain": "law"}\n\n{"query": "c", "domain": null}\n', "utf-8")
    assert read_queries(path) == [LabelledQuery("a\u2028b", "law", source="q")]
    for bad in (
        "{",
        "[]",
        '{"query": 3, "domain": "law"}',
        '{"query": "a", "question": "a", "domain": "law"}',
    ):
        path.write_text(f'{{"query": "a", "domain": "law"}}\n{bad}\n')
        with pytest.raises(BadTraining, match="line 2"):
            read_queries(path)
    with pytest.raises(BadTraining, match="cannot read"):
        read_queries(tmp_path / "none.jsonl")


def test_what_is_known_of_a_query_is_read(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    known = {"form": "short", "lang": "de", "source": "mmlu", "topic": "torts", "hard": True}
    path.write_text(json.dumps({"query": "a", "domain": "general", **known}) + "\n")
    assert read_queries(path) == [LabelledQuery("a", "general", "short", "de", "mmlu", "torts", hard=True)]
    path.write_text(
        json.dumps({"query": "a", "domain": "law", **dict.fromkeys(known)} | {"hard": False}) + "\n"
    )
    assert read_queries(path) == [LabelledQuery("a", "law", source="q")]
    for key, wrong in (
        ("domain", 3),
        ("form", 3),
        ("lang", ["de"]),
        ("source", {}),
        ("topic", True),
        ("hard", 1),
    ):
        path.write_text("\n" + json.dumps({"query": "a", "domain": "law", key: wrong}) + "\n")
        with pytest.raises(BadTraining, match=rf"q\.jsonl, line 2: expected .* as `{key}`, found "):
            read_queries(path)


def test_choices_are_read_beside_their_questions(tmp_path: Path) -> None:
    lines = [
        {"question": "a", "domain": "law", "choices": ["the first amendment", 14]},
        {"question": "b", "domain": "law", "choices": ["yes", "no"]},
        {"question": "c", "domain": "law", "choices": "not a list, and so none of them"},
        {"question": "d", "domain": None, "choices": ["unlabelled", "and so left out"]},
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_choices(path) == {"a": "the first amendment 14"}
    assert [query.text for query in read_queries(path)] == ["a", "b", "c"]


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    (tmp_path / "routing").mkdir()
    (tmp_path / "questions").mkdir()
    (tmp_path / "routing" / "b.jsonl").write_text('{"query": "b", "domain": "law"}\n')
    (tmp_path / "questions" / "a.jsonl").write_text('{"question": "a", "domain": "math"}\n')
    assert read_queries(tmp_path) == [
        LabelledQuery("a", "math", source="a"),
        LabelledQuery("b", "law", source="b"),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadTraining, match=r"has no \.jsonl files"):
        read_queries(tmp_path / "empty")


def test_corpus_snippets(tmp_path: Path) -> None:
    folder = tmp_path / "corpora" / "law"
    folder.mkdir(parents=True)
    texts = ["a" * 1000, "b" * 50, "c" * 3000]
    (folder / "calibration.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    snippets = read_corpus_snippets(tmp_path, {"law", "music"}, count=200)
    assert len(snippets) == 200 and {domain for _, domain in snippets} == {"law"}
    assert all(
        len(set(text)) == 1 and len(text) == min(SNIPPET_CHARS, 50 if text[0] == "b" else SNIPPET_CHARS)
        for text, _ in snippets
    )
    shares = {letter: sum(text[0] == letter for text, _ in snippets) / 200 for letter in "abc"}
    assert shares["c"] > shares["a"] > shares["b"]
    assert snippets == read_corpus_snippets(tmp_path, {"law"}, count=200)
    assert read_corpus_snippets(tmp_path, {"music"}) == []


QUERIES = [LabelledQuery(text, domain) for text, domain in PAIRS]


def test_evaluation_counts_what_it_skips(cascade: Cascade) -> None:
    unknown = LabelledQuery("x", "music")
    report = evaluate([*QUERIES, LabelledQuery("zzzz qqqq", OOD), unknown], cascade.router, cascade)
    assert (report.routed.n, report.skipped) == (len(PAIRS) + 1, 1)
    assert report.forced.accuracy == 1.0
    assert report.ood_recall == 1.0
    assert (report.routed.accuracy, report.routed.to_generalist, report.routed.wrong_expert) == (
        1.0,
        0.0,
        0.0,
    )
    assert report.decided_by == {"hash-256": 1.0}
    assert set(report.by_domain) == {"biochem", "law", "computing", "general", "ood"}
    assert set(report.forced.by_domain) == {"biochem", "law", "computing", "general"}
    assert (report.by_form, report.by_language, report.by_source, report.hard) == ({}, {}, {}, None)
    assert [point["coverage"] for point in report.coverage] == [share / 10 for share in range(1, 11)]
    with pytest.raises(BadTraining, match="no query"):
        evaluate([unknown], cascade.router, cascade)


def test_groups_and_hard_queries_are_reported_apart(
    cascade: Cascade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    law = [LabelledQuery(text, domain, "question", "en", "exam") for text, domain in PAIRS if domain == "law"]
    hard = LabelledQuery(
        "a joke about a contract in court", "general", "short", "en", "<b>own</b>", hard=True
    )
    easy = LabelledQuery("hello, how are you?", "general", "short", "en", "<b>own</b>")
    ood = LabelledQuery("zzzz", OOD, language="de")
    report = evaluate([*law, hard, easy, ood], cascade.router, cascade)
    assert {name: each.n for name, each in report.by_form.items()} == {"question": 6, "short": 2}
    assert {name: each.n for name, each in report.by_language.items()} == {"de": 1, "en": 8}
    assert {name: each.n for name, each in report.by_source.items()} == {"exam": 6, "<b>own</b>": 2}
    assert {name: each.n for name, each in report.forced.by_language.items()} == {"en": 8}
    assert report.hard is not None and report.hard.n == 1
    assert {name: each.n for name, each in report.ece_by_source.items()} == {"exam": 6, "<b>own</b>": 2}
    html = page(asdict(report))
    assert "&lt;b&gt;own" in html and "<b>own" not in html
    assert (
        html.index("By domain") < html.index("By form") < html.index("By language") < html.index("By source")
    )
    show(report)
    printed = capsys.readouterr().out
    assert printed.index("routed decisions") < printed.index("by domain") < printed.index("by source")
    assert "hard, for no expert" in printed and "fewer than 10 queries" in printed


def test_sources_left_out_are_shown(
    cascade: Cascade, embedder: HashEmbedder, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = [replace(query, source=f"set {at % 2}") for at, query in enumerate(QUERIES)]
    music = [LabelledQuery(text, "music", source="set 2") for text in ("a sonata", "a fugue in three voices")]

    def refit(training: list[LabelledQuery]) -> tuple[Router, RoutePredictor]:
        router = fit([(query.text, query.domain) for query in training], [embedder])
        return router, Cascade(router, [embedder])

    found = leave_one_out([*queries, *music], lambda query: query.source, refit, no_progress)
    report = replace(evaluate(queries, cascade.router, cascade), leave_one_source_out=found)
    html = page(asdict(report))
    show(report)
    printed = capsys.readouterr().out
    for shown in (html, printed):
        table = shown.lower().split("each source by a router that was fitted without it")[1]
        assert table.index("set 0") < table.index("set 1") < table.index("set 2")
        assert "its domains are in no other" in table
    assert "each form by" not in printed


def test_robustness_and_confusion_are_reported(
    cascade: Cascade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = [*QUERIES, LabelledQuery("<b>zzzz</b>", OOD)]
    report = evaluate(queries, cascade.router, cascade)
    assert set(report.robustness) == {"typos", "case", "fragment", "small_talk"}
    assert report.robustness["case"] > 0.5
    assert report.confusion["law"] == report.forced.confusion["law"] == {"law": 6}
    assert report.confusion["ood"] == {"general": 1} and "ood" not in report.forced.confusion
    assert evaluate(queries, cascade.router, cascade).robustness == report.robustness
    assert report.ood_recall_at_95 == 1.0
    write_html(report, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert html.count("<svg") == 4
    assert not re.search(r"<(script|link rel=.stylesheet|img)", html)
    json.dumps(asdict(report))
    show(report)
    assert "robustness: typos" in capsys.readouterr().out
