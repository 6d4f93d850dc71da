"""`mom route eval` as a user calls it, with the hash embedder."""

import json
from pathlib import Path

import pytest

from tests.mom.line import mom, parsed
from tests.router.router_world import measured, write_slice

FORMS, LANGUAGES = ("question", "short"), ("en", "de")
QUERIES = {
    "law": [
        "Can a tenant sue a landlord?",
        "Is a verbal contract enforceable?",
        "breach of contract",
    ],
    "math": [
        "What is the derivative of x squared?",
        "How do I invert a matrix?",
        "sum of a series",
    ],
    "general": ["hello, how are you?", "tell me a joke about otters, quickly", "a poem for my maths teacher"],
    "ood": ["book a table for two", "transfer money to my savings", "zzzz"],
}


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "serve.yaml"
    path.write_text("embedder: hash\n")
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = [
        {
            "query": text,
            "domain": domain,
            "form": FORMS[at % 2],
            "lang": LANGUAGES[at % 2],
            "source": f"set {at % 2}",
            "hard": domain == "general" and at == 2,
        }
        for domain, texts in QUERIES.items()
        for at, text in enumerate(texts)
    ]
    path = tmp_path / "queries.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_eval_reports_routed_decisions_by_group(config: str, data: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    report = parsed("route", "eval", "--data", data, "--config", config, "--json", "--html", str(page))
    assert set(report["routed"]) == {"accuracy", "stderr", "n", "to_generalist", "wrong_expert", "note"}
    assert report["routed"]["n"] == 12
    named = {
        "by_domain": set(QUERIES),
        "by_form": set(FORMS),
        "by_language": set(LANGUAGES),
        "by_source": {"set 0", "set 1"},
    }
    for groups, names in named.items():
        assert set(report[groups]) == names
        assert set(report["forced"][groups]) == names - {"ood"}
        assert sum(each["n"] for each in report[groups].values()) == 12
    assert report["hard"]["n"] == 1
    assert report["leave_one_source_out"] is report["leave_one_form_out"] is None
    assert "By language" in page.read_text()


def test_each_source_is_left_out_of_a_fit(config: str, data: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ("route", "eval", "--data", data, "--config", config, "--leave-one-source-out")
    found = parsed(*arguments, "--json", "--html", str(page))["leave_one_source_out"]
    assert {name: each["routed"]["n"] for name, each in found.items()} == {"set 0": 8, "set 1": 4}
    assert found["set 1"]["training_queries"] - found["set 0"]["training_queries"] == 4
    assert "Each source by a router that was fitted without it" in page.read_text()
    table = mom(*arguments)
    assert table.returncode == 0 and "each source by a router that was fitted without it" in table.stdout


def test_explain_shows_the_expected_costs(config: str, mom_home: Path) -> None:
    query = "Is a verbal contract enforceable?"
    for name, domain, value in (("lex", "law", 2.0), ("gen", "general", 1.0)):
        figures = [measured(value, stderr=0.0, domain=each) for each in ("law", "math")]
        write_slice(mom_home / "slices", name, domain, measurements=figures)
    decision = parsed("route", "explain", query, "--config", config, "--json")
    assert decision["costs"] == {"gen": 0, "lex": pytest.approx(1)}
    assert decision["expert"] == "gen"
    shown = mom("route", "explain", query, "--config", config).stdout
    assert shown.splitlines()[-1] == "expected cost: gen +0.0 %, lex +100.0 %"
