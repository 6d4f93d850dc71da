"""A conversation stays with its expert until its topic clearly moves."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from router.routing.conversation import settled
from router.routing.decide import Decision

LAW, BIO = "Is a verbal contract enforceable?", "How do enzymes lower activation energy?"


def turn(expert: str, domain: str, confidence: float, fallback: bool = False, **others: float) -> Decision:
    chances = {domain: confidence, **others}
    return Decision(expert, domain, confidence, 0.3, 0.1, fallback, "because", chances)


FIRST = turn("lex", "law", 0.9)


@pytest.mark.parametrize(
    ("after", "expert"),
    [
        (turn("gen", "law", 0.3, fallback=True), "lex"),  # unsure: "and why?"
        (turn("gen", "biochem", 0.35, fallback=True, law=0.3), "lex"),
        (turn("bio", "biochem", 0.45, law=0.40), "lex"),  # no clear move
        (turn("bio", "biochem", 0.80, law=0.10), "bio"),
        (turn("gen", "general", 0.70, fallback=True), "gen"),  # small talk
        (turn("gen", "general", 0.40, fallback=True), "lex"),
        (Decision("gen", "general", 0.0, 0.0, 0.0, True, "there is nothing to route on", {}), "lex"),
    ],
)
def test_the_expert_stays_unless_the_topic_clearly_moves(after: Decision, expert: str) -> None:
    found = settled([FIRST, after])
    assert found.expert == expert
    assert found.fallback == (expert == "gen")
    assert ("stays with law" in found.reason) == (expert == "lex")
    assert found.probabilities == after.probabilities


def test_who_the_generalist_answered_goes_to_an_expert_when_the_topic_comes() -> None:
    chat = turn("gen", "general", 0.9, fallback=True)
    assert settled([chat, turn("bio", "biochem", 0.5, law=0.4)]).expert == "bio"
    assert settled([chat]) is chat
    back = [FIRST, turn("bio", "biochem", 0.8), turn("gen", "biochem", 0.2, fallback=True)]
    assert settled(back).expert == "bio"


def test_turns_over_http(serve: Callable[..., TestClient]) -> None:
    client = serve()

    def asked(*turns: str) -> Any:
        messages = [
            message
            for text in turns
            for message in ({"role": "user", "content": text}, {"role": "assistant", "content": "So."})
        ][:-1]
        body = {"model": "auto", "messages": messages}
        answer = client.post("/v1/chat/completions", json=body).headers
        assert client.post("/route", json={"messages": messages}).json()["expert"] == answer["x-mom-expert"]
        return answer["x-mom-expert"]

    assert asked("zzz qqq vvv") == "gen"
    assert asked(LAW) == asked(LAW, "zzz qqq vvv") == "lex"
    assert asked(LAW, "") == "lex"
    assert asked(LAW, "zzz qqq vvv", BIO) == "bio"
    assert asked(LAW, "hello, how are you?") == "gen"
