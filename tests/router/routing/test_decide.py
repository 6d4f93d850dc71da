"""Decisions and their reasons, fitting, and in-domain scores."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.embedding.embedder import HashEmbedder, truncate_middle
from router.embedding.sentence import SentenceEmbedder
from router.errors import BadSettings, BadTraining
from router.routing.cascade import Cascade
from router.routing.decide import Decision
from router.routing.model import Router, Thresholds, in_domain_scores, softmax
from router.routing.route import route
from router.training.fit import digest, fit
from slices.errors import MissingExtra
from tests.router.router_world import PAIRS

EXPERTS = {"biochem": "bio", "law": "lex", "computing": "code"}


def ask(text: str, router: Router, embedder: HashEmbedder, experts: dict[str, str] = EXPERTS) -> Decision:
    return route(text, Cascade(router, [embedder]), router.thresholds, experts, "gen")


@pytest.mark.parametrize(
    ("text", "expert"),
    [
        ("How do enzymes lower activation energy?", "bio"),
        ("Is a verbal contract enforceable?", "lex"),
        ("How do I reverse a list in Python?", "code"),
    ],
)
def test_a_known_question_goes_to_its_expert(
    text: str, expert: str, fitted: Router, embedder: HashEmbedder
) -> None:
    decision = ask(text, fitted, embedder)
    assert (decision.expert, decision.fallback) == (expert, False)
    assert decision.confidence == max(decision.probabilities.values())
    assert sum(decision.probabilities.values()) == pytest.approx(1)
    assert decision.distance == pytest.approx(0, abs=1e-5)


def test_the_reason_of_each_fallback(fitted: Router, embedder: HashEmbedder) -> None:
    law = "Is a verbal contract enforceable?"
    strict = {
        "general": (fitted, "hello, how are you?", EXPERTS),
        "out-of-domain": (replace(fitted, thresholds=Thresholds(min_in_domain=1.1)), law, EXPERTS),
        "low confidence": (replace(fitted, thresholds=Thresholds(min_confidence=1.0)), law, EXPERTS),
        "low margin": (
            replace(fitted, thresholds=Thresholds(min_confidence=0.0, min_margin=1.0)),
            law,
            EXPERTS,
        ),
        "no expert": (fitted, law, {"biochem": "bio"}),
    }
    for word, (router, text, experts) in strict.items():
        decision = ask(text, router, embedder, experts)
        assert (decision.expert, decision.fallback) == ("gen", True), word
        assert word in decision.reason


@pytest.mark.parametrize("text", ["", " \n\t", "\x00", "\ud800", "a\x00\udfff", "é" * 100_000])
def test_any_text_gets_a_decision(text: str, fitted: Router, embedder: HashEmbedder) -> None:
    assert ask(text, fitted, embedder).expert in {"bio", "lex", "code", "gen"}


def test_routed_text_keeps_both_ends() -> None:
    text = truncate_middle("a" * 5000 + "b" * 5000, limit=100)
    assert len(text) == 100
    assert text.startswith("aaa") and text.endswith("bbb")


def test_embedder_gives_unit_vectors(embedder: HashEmbedder) -> None:
    vectors = embedder.embed(["one", "two words", "\x00"])
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_two_classes_have_one_probability_each(embedder: HashEmbedder) -> None:
    """scikit-fit_head gives two classes a single row of weights."""
    router = fit([pair for pair in PAIRS if pair[1] in {"law", "general"}], [embedder])
    assert router.heads[0].weights.shape[0] == 2
    assert ask("Is a verbal contract enforceable?", router, embedder).domain == "law"
    for prediction in Cascade(router, [embedder]).predict(["a contract", "hello"]):
        assert prediction.probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("pairs", "word"),
    [
        ([], "two domains"),
        ([("a", "law"), ("b", "law")], "two domains"),
        ([*PAIRS, ("alone", "music")], "music"),
        ([*PAIRS, ("same", "music"), ("same", "music")], "music"),
        ([*PAIRS, (" ", "law")], "empty query in law"),
    ],
)
def test_bad_training_says_why(pairs: list[tuple[str, str]], word: str, embedder: HashEmbedder) -> None:
    with pytest.raises(BadTraining, match=word):
        fit(pairs, [embedder])


def test_digest_ignores_order_but_not_labels() -> None:
    assert digest(PAIRS) == digest(PAIRS[::-1])
    assert digest(PAIRS) != digest([*PAIRS, ("a", "law")])
    assert digest([("a", "law")]) != digest([("law", "a")])


def test_in_domain_scores_are_shares_and_rank_out_of_domain_texts() -> None:
    quantiles = np.linspace(0.5, 1.5, 101)
    scores = in_domain_scores(np.array([9.0, 1.5, 1.0, 0.55, 0.51, 0.5, 0.4, 0.3, -1.0]), quantiles)
    assert scores[:5] == pytest.approx([1, 1, 0.5, 0.05, 0.01])
    assert (np.diff(scores) <= 0).all() and (np.diff(scores[4:]) < 0).all() and (scores > 0).all()


def test_softmax_survives_large_logits() -> None:
    assert softmax(np.array([[1e9, 0.0]])) == pytest.approx(np.array([[1.0, 0.0]]))


def test_an_embedder_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for source in (str(tmp_path / "none"), "not-a-hub-id", "a/b/c"):
        with pytest.raises(BadSettings, match="no embedder"):
            SentenceEmbedder(source)
    monkeypatch.setattr("router.embedding.sentence.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"\[route\]"):
        SentenceEmbedder()


def test_deciding_and_checking_requests_load_nothing_heavy() -> None:
    heavy = ("torch", "ray", "sklearn", "fastapi", "transformers")
    modules = (
        "router.routing.decide, router.api.schema, router.settings, router.serving.build, "
        "router.training.evaluate, router.experts.catalogue"
    )
    code = f"import sys, {modules}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
