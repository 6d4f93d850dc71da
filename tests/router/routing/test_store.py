"""The router on disk: a round trip is exact, and damaged or old files are refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.embedding.embedder import HashEmbedder
from router.errors import BadRouter, BadTraining
from router.routing import store
from router.routing.model import Router
from router.serving import build
from router.settings import Settings, ThresholdOverrides
from router.training.fit import fit
from tests.router.router_world import DOMAINS, PAIRS


def test_round_trip(fitted: Router, embedder: HashEmbedder, tmp_path: Path) -> None:
    store.save(fitted, tmp_path / "r")
    again = store.load(tmp_path / "r")
    for name in ("weights", "bias", "reference_logits"):
        assert np.array_equal(getattr(again.heads[0], name), getattr(fitted.heads[0], name))
    for name in ("pool_weights", "labels", "score_quantiles"):
        assert np.array_equal(getattr(again.stages[0], name), getattr(fitted.stages[0], name))
    assert again.stages[0].prototypes == pytest.approx(fitted.stages[0].prototypes, abs=5e-4)
    assert (again.classes, again.thresholds) == (fitted.classes, fitted.thresholds)
    assert again.stages[0].exit_thresholds == fitted.stages[0].exit_thresholds
    store.check_embedders(again, [embedder])
    store.save(fitted, tmp_path / "r")
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def edit(folder: Path, **fields: object) -> None:
    path = folder / store.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def damage(folder: Path, how: str) -> None:
    arrays = folder / store.ARRAYS
    match how:
        case "schema":
            edit(folder, schema=4)
        case "stages":
            edit(folder, stages=[2])
        case "classes":
            edit(folder, classes=["law", "general"])
        case "nan":
            edit(folder, thresholds={"min_confidence": float("nan"), "min_margin": 0, "min_in_domain": 0})
        case "not JSON":
            (folder / store.CONFIG).write_bytes(b"\xff{")
        case "cut":
            arrays.write_bytes(arrays.read_bytes()[:-9])
        case "no arrays":
            arrays.unlink()
        case "no config":
            (folder / store.CONFIG).unlink()


@pytest.mark.parametrize(
    "how", ["schema", "stages", "classes", "nan", "not JSON", "cut", "no arrays", "no config"]
)
def test_a_damaged_router_is_refused_in_one_sentence(how: str, fitted: Router, tmp_path: Path) -> None:
    store.save(fitted, tmp_path / "r")
    damage(tmp_path / "r", how)
    with pytest.raises(BadRouter, match="mom route fit") as caught:
        store.load(tmp_path / "r")
    assert "\n" not in str(caught.value)


def test_an_old_schema_is_refused_with_what_to_do(fitted: Router, tmp_path: Path) -> None:
    store.save(fitted, tmp_path / "r")
    edit(tmp_path / "r", schema=4)
    with pytest.raises(BadRouter, match=r"has schema 4, expected 6; run `mom route fit`"):
        store.load(tmp_path / "r")


class Renamed(HashEmbedder):
    """An embedder under another name."""

    def __init__(self, name: str, dim: int) -> None:
        super().__init__(dim)
        self._name = name

    @property
    def name(self) -> str:
        return self._name


def test_another_embedder_is_refused(fitted: Router) -> None:
    with pytest.raises(BadRouter, match="hash-128"):
        store.check_embedders(fitted, [HashEmbedder(128)])
    with pytest.raises(BadRouter, match="expects 256"):
        store.check_embedders(fitted, [Renamed("hash-256", 128)])
    rolled = np.roll(fitted.heads[0].reference_logits, 1)
    other = replace(fitted, heads=(replace(fitted.heads[0], reference_logits=rolled),))
    with pytest.raises(BadRouter, match="other vectors"):
        store.check_embedders(other, [HashEmbedder()])


def test_the_default_router_is_fitted_when_absent_or_stale() -> None:
    settings = Settings(embedder="hash")
    first = build.load_or_fit_router(settings, DOMAINS)
    card = store.default_folder() / store.CONFIG
    written = card.stat().st_mtime_ns
    assert build.load_or_fit_router(settings, DOMAINS).queries_sha256 == first.queries_sha256
    assert card.stat().st_mtime_ns == written
    changed = build.load_or_fit_router(settings, DOMAINS | {"law": DOMAINS["law"][:-1]})
    assert changed.queries_sha256 != first.queries_sha256
    damage(store.default_folder(), "cut")
    assert build.load_or_fit_router(settings, DOMAINS).queries_sha256 == first.queries_sha256


def test_a_named_router_is_loaded_as_it_is(embedder: HashEmbedder, tmp_path: Path) -> None:
    with pytest.raises(BadRouter, match="no fitted router"):
        build.load_or_fit_router(Settings(embedder="hash", router=tmp_path / "mine"), DOMAINS)
    store.save(fit(PAIRS[:12], [embedder]), tmp_path / "mine")
    own = Settings(
        embedder="hash", router=tmp_path / "mine", thresholds=ThresholdOverrides(min_in_domain=0.25)
    )
    router = build.load_or_fit_router(own, DOMAINS)
    assert router.classes == ("biochem", "law")
    assert (router.thresholds.min_in_domain, router.thresholds.min_margin) == (0.25, 0.05)


def test_explain_before_there_are_slices() -> None:
    decision = build.explain("Is a verbal contract enforceable?", Settings(embedder="hash"), DOMAINS)
    assert (decision.expert, decision.fallback) == ("law", False)
    with pytest.raises(BadTraining):
        build.explain("x", Settings(embedder="hash"), {})


def test_explain_names_the_slice_that_answers(slices_root: Path) -> None:
    settings = Settings(embedder="hash")
    assert build.explain("Is a verbal contract enforceable?", settings, DOMAINS).expert == "lex"
    without_expert = build.explain("How do I sort a list in Python?", settings, DOMAINS)
    assert (without_expert.expert, without_expert.fallback) == ("gen", True)
    assert "no expert" in without_expert.reason
