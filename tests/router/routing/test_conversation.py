"""A conversation stays with its expert until its topic clearly changes."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from router.routing.conversation import merge_decisions, route_conversation
from router.routing.decide import Decision

LAW, BIO = "Is a verbal contract enforceable?", "How do enzymes lower activation energy?"


def turn(expert: str, domain: str, confidence: float, fallback: bool = False, **others: float) -> Decision:
    probabilities = {domain: confidence, **others}
    return Decision(
        expert=expert,
        domain=domain,
        confidence=confidence,
        margin=0.3,
        distance=0.1,
        fallback=fallback,
        reason="because",
        probabilities=probabilities,
    )


FIRST = turn("lex", "law", 0.9)


@pytest.mark.parametrize(
    ("after", "expert"),
    [
        (turn("gen", "law", 0.3, fallback=True), "lex"),  # low confidence: "and why?"
        (turn("gen", "biochem", 0.35, fallback=True, law=0.3), "lex"),
        (turn("bio", "biochem", 0.45, law=0.40), "lex"),  # no clear change of topic
        (turn("bio", "biochem", 0.80, law=0.10), "bio"),
        (turn("gen", "general", 0.70, fallback=True), "gen"),  # small talk
        (turn("gen", "general", 0.40, fallback=True), "lex"),
        (
            Decision(
                expert="gen",
                domain="general",
                confidence=0.0,
                margin=0.0,
                distance=0.0,
                fallback=True,
                reason="empty query",
                probabilities={},
            ),
            "lex",
        ),
    ],
)
def test_the_expert_stays_unless_the_topic_clearly_changes(after: Decision, expert: str) -> None:
    decision = merge_decisions([FIRST, after])
    assert decision.expert == expert
    assert decision.fallback == (expert == "gen")
    assert ("stays with law" in decision.reason) == (expert == "lex")
    assert decision.probabilities == after.probabilities


def test_a_conversation_leaves_the_generalist_when_a_topic_comes() -> None:
    chat = turn("gen", "general", 0.9, fallback=True)
    assert merge_decisions([chat, turn("bio", "biochem", 0.5, law=0.4)]).expert == "bio"
    assert merge_decisions([chat]) is chat
    back = [FIRST, turn("bio", "biochem", 0.8), turn("gen", "biochem", 0.2, fallback=True)]
    assert merge_decisions(back).expert == "bio"


def test_turns_over_http(serve: Callable[..., TestClient]) -> None:
    client = serve()

    def answering_expert(*turns: str) -> Any:
        messages = [
            message
            for text in turns
            for message in ({"role": "user", "content": text}, {"role": "assistant", "content": "So."})
        ][:-1]
        body = {"model": "auto", "messages": messages}
        headers = client.post("/v1/chat/completions", json=body).headers
        assert client.post("/route", json={"messages": messages}).json()["expert"] == headers["x-mom-expert"]
        return headers["x-mom-expert"]

    assert answering_expert("zzz qqq vvv") == "gen"
    assert answering_expert(LAW) == answering_expert(LAW, "zzz qqq vvv") == "lex"
    assert answering_expert(LAW, "") == "lex"
    assert answering_expert(LAW, "zzz qqq vvv", BIO) == "bio"
    assert answering_expert(LAW, "hello, how are you?") == "gen"


def test_a_conversation_leaves_an_expert_that_the_turn_does_not_fit() -> None:
    decisions = {LAW: FIRST, "und warum?": turn("gen", "law", 0.3, fallback=True)}

    def misfit(text: str, expert: str) -> str | None:
        return f"too many tokens for {expert}" if text == "und warum?" else None

    assert route_conversation(list(decisions), decisions.__getitem__).expert == "lex"
    left = route_conversation(list(decisions), decisions.__getitem__, misfit)
    assert (left.expert, left.fallback) == ("gen", True)
    assert left.reason == "because; the conversation was with lex, but too many tokens for lex"
    assert route_conversation([*decisions, LAW], decisions.__getitem__, misfit).expert == "lex"
