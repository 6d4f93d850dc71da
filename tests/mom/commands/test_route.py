"""`mom route eval` as a user calls it, with the hash embedder."""

import json
from pathlib import Path

import pytest

from router.routing.model import Router
from router.routing.store import save
from tests.mom.line import mom, parsed
from tests.router.router_world import measured, write_slice

FORMS, LANGUAGES = ("question", "short"), ("en", "de")
QUERIES = {
    "law": ["Can a tenant sue a landlord?", "Is a verbal contract enforceable?", "breach of contract"],
    "computing": ["How do I parse XML in Python?", "Why is my Java program slow?", "sort a linked list"],
    "general": ["hello, how are you?", "tell me a joke about otters, quickly", "a poem for my landlord"],
    "ood": ["book a table for two", "transfer money to my savings", "zzzz"],
}


@pytest.fixture
def config(tmp_path: Path, fitted: Router) -> str:
    """A fitted router of four small domains."""
    save(fitted, tmp_path / "router")
    path = tmp_path / "serve.yaml"
    path.write_text(f"embedder: hash\nrouter: {tmp_path / 'router'}\n")
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


def test_served_slices_with_measurements_have_a_cost(
    config: str, data: str, mom_home: Path, tmp_path: Path
) -> None:
    """A law expert 20 % better than the generalist on law and 50 % worse on computing."""
    root, page = mom_home / "slices", tmp_path / "page.html"
    own = [measured(0.8), measured(1.5, domain="computing", data="e")]
    write_slice(root, "lex", "law", measurements=own)
    general = [measured(1.0), measured(1.0, domain="computing", data="e")]
    write_slice(root, "gen", "general", measurements=general)
    arguments = ("route", "eval", "--data", data, "--config", config, "--json", "--html", str(page))
    cost = parsed(*arguments)["cost"]
    assert cost["n"] + cost["unmeasured"] == 12
    assert cost["oracle"]["value"] <= cost["routed"]["value"] < cost["random"]["value"]
    assert cost["oracle"]["value"] < cost["generalist"]["value"] == 0
    assert "Measured cost of the served models" in page.read_text()


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
