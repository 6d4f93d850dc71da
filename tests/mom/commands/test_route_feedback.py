"""`mom route feedback` as a user calls it, with the hash embedder."""

import json
import stat
from pathlib import Path

import pytest

from router.embedding.embedder import HashEmbedder
from router.routing.model import Router
from router.routing.store import load, save
from router.training.example_queries import read_example_queries
from router.training.fit import fit
from tests.mom.line import mom, parsed
from tests.router.router_world import write_slice

# Words that no example query has, so that only the feedback can tell their domain.
PER_DOMAIN = 150
VERBS, NOUNS = ("zorbl", "quarx", "blint"), ("vexiq", "jubjub")
UNKNOWN = [f"{verb} the frumious {noun}" for verb in VERBS for noun in NOUNS]


@pytest.fixture(scope="module")
def small() -> Router:
    """A router fitted on a few example queries of four domains."""
    pairs: list[tuple[str, str]] = []
    for name in ("law", "computing", "biochem", "general"):
        queries = [query for query in read_example_queries([name]) if query.language in (None, "en")]
        pairs += [(query.text, name) for query in queries[:PER_DOMAIN]]
    return fit(pairs, [HashEmbedder()])


@pytest.fixture
def router(tmp_path: Path, small: Router) -> Path:
    """Its folder."""
    save(small, tmp_path / "router")
    return tmp_path / "router"


@pytest.fixture
def config(tmp_path: Path, router: Path) -> str:
    path = tmp_path / "serve.yaml"
    path.write_text(f"embedder: hash\nrouter: {router}\nthresholds: {{min_margin: 0.01}}\n")
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """All labelled as law, but one that is rated down."""
    path = tmp_path / "feedback.jsonl"
    lines: list[dict[str, object]] = [{"query": text, "domain": "law"} for text in UNKNOWN[:-1]]
    lines.append({"query": UNKNOWN[-1], "domain": "general", "rating": "down"})
    lines.append({"prompt": "an unrated line of the access log", "expert": "law", "status": 200})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def texts_below(folder: Path) -> list[Path]:
    """The files that contain a word of the feedback."""
    return [path for path in folder.rglob("*") if path.is_file() and b"frumious" in path.read_bytes()]


def test_the_router_learns_and_says_what_changed(
    config: str, file: Path, router: Path, mom_home: Path
) -> None:
    explain = ("route", "explain", UNKNOWN[0], "--config", config, "--json")
    assert parsed(*explain)["expert"] != "law"
    before = load(router)
    found = parsed("route", "feedback", str(file), "--config", config, "--json")
    assert (found["labelled"]["n"], found["rejected"]["n"], found["unlabelled"]) == (5, 1, 1)
    assert found["labelled"]["right_before"] < found["labelled"]["right_after"] == 1
    assert len(found["changes"]) == found["labelled"]["changed"] > 0
    first = found["changes"][0]
    assert (first["query"], first["label"], first["after"]) == (UNKNOWN[0], "law", "law")
    examples = found["examples"]
    assert examples["changed"] <= 0.2 * examples["n"]
    assert abs(examples["right_after"] - examples["right_before"]) < 0.03
    assert (found["path"], found["stored"]) == (str(router), None)
    assert parsed(*explain)["expert"] == "law"
    after = load(router)
    assert after.thresholds == before.thresholds  # not those of the settings
    assert after.queries_sha256 == before.queries_sha256  # else the service would fit it again
    assert texts_below(mom_home) == texts_below(router) == []


def test_a_dry_run_writes_nothing(config: str, file: Path, router: Path, mom_home: Path) -> None:
    before = (router / "router.json").read_bytes()
    done = mom("route", "feedback", str(file), "--config", config, "--dry-run", "--store")
    assert done.returncode == 0
    assert "changed decisions" in done.stdout and "nothing written" in done.stdout
    assert "rated down: 1" in done.stdout
    assert (router / "router.json").read_bytes() == before
    assert texts_below(mom_home) == []


def test_queries_are_stored_where_asked(config: str, file: Path, mom_home: Path, tmp_path: Path) -> None:
    arguments = ("route", "feedback", str(file), "-o", str(tmp_path / "own"), "--store", "--config", config)
    found = parsed(*arguments, "--json")
    stored = mom_home / "feedback" / "queries.jsonl"
    assert found["stored"] == str(stored) and found["path"] == str(tmp_path / "own")
    assert texts_below(mom_home) == [stored]
    lines = [json.loads(line) for line in stored.read_text().splitlines()]
    assert lines == [{"query": text, "domain": "law", "source": "feedback"} for text in UNKNOWN[:-1]]
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600


def test_names_of_experts_stand_for_their_domains(config: str, tmp_path: Path, mom_home: Path) -> None:
    root = mom_home / "slices"
    write_slice(root, "lex", "law")
    write_slice(root, "gen", "general")
    path = tmp_path / "feedback.jsonl"
    path.write_text('{"query": "frumious vexiq", "expert": "gen", "rating": -1}\n')
    found = parsed("route", "feedback", str(path), "--config", config, "--json")
    assert found["rejected"]["n"] == 1 and found["rejected"]["before"] == found["rejected"]["after"]
    assert found["labelled"] is found["path"] is None
    path.write_text('{"query": "frumious vexiq", "expert": "lux", "rating": 1}\n')
    done = mom("route", "feedback", str(path), "--config", config)
    assert done.returncode == 1
    assert "line 1: no domain or expert is called 'lux'" in done.stderr and "lex" in done.stderr


def test_an_adapted_router_needs_a_folder(file: Path, tmp_path: Path) -> None:
    config = tmp_path / "other.yaml"
    config.write_text("embedder: hash\n")
    done = mom("route", "feedback", str(file), "--config", str(config))
    assert done.returncode == 1 and "give -o DIR" in done.stderr
