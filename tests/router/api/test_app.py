"""The service over HTTP, with scripted experts in this process: what a good client gets."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from router.settings import Limits
from slices.runtimes.scripted import ScriptedRuntime

Serve = Callable[..., TestClient]
LAW = [{"role": "user", "content": "Is a verbal contract enforceable?"}]


def chat(client: TestClient, **body: object) -> dict[str, Any]:
    answer = client.post("/v1/chat/completions", json={"model": "auto", "messages": LAW} | body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_auto_routes_and_says_who_answered(serve: Serve) -> None:
    answer = serve().post("/v1/chat/completions", json={"model": "auto", "messages": LAW})
    assert answer.headers["x-mom-expert"] == "lex"
    assert answer.headers["x-mom-fallback"] == "false"
    assert 0 < float(answer.headers["x-mom-confidence"]) <= 1
    assert "law" in answer.headers["x-mom-decision"]
    body = answer.json()
    assert (body["model"], body["object"]) == ("lex", "chat.completion")
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "I am lex.",
        "refusal": None,
        "annotations": [],
    }
    assert body["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 3


def test_a_name_goes_straight_to_its_expert(serve: Serve) -> None:
    client = serve()
    answer = client.post("/v1/chat/completions", json={"model": "bio", "messages": LAW})
    assert answer.json()["choices"][0]["message"]["content"] == "I am bio."
    assert answer.headers["x-mom-decision"] == "expert named by the request"


def test_small_talk_goes_to_the_generalist(serve: Serve) -> None:
    hello = [{"role": "user", "content": "hello, how are you?"}]
    answer = serve().post("/v1/chat/completions", json={"model": "auto", "messages": hello})
    assert (answer.headers["x-mom-expert"], answer.headers["x-mom-fallback"]) == ("gen", "true")


def test_the_last_user_message_decides(serve: Serve) -> None:
    turns = [
        {"role": "user", "content": "hello, how are you?"},
        {"role": "assistant", "content": "Fine."},
        {"role": "user", "content": [{"type": "text", "text": LAW[0]["content"]}]},
        {"role": "assistant", "content": None},
    ]
    assert chat(serve(), messages=turns)["model"] == "lex"


def test_stream(serve: Serve) -> None:
    body = {"model": "auto", "messages": LAW, "stream": True, "stream_options": {"include_usage": True}}
    answer = serve().post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-mom-expert"] == "lex"
    *chunks, usage = events(answer.text)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "I am lex."
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 3


def test_completion(serve: Serve) -> None:
    client = serve()
    body = {"model": "bio", "prompt": "Once", "max_tokens": 2}
    whole = client.post("/v1/completions", json=body).json()
    assert whole["object"] == "text_completion"
    assert whole["choices"] == [{"index": 0, "text": "I am", "logprobs": None, "finish_reason": "length"}]
    assert whole["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    parts = events(client.post("/v1/completions", json=body | {"stream": True}).text)
    assert "".join(part["choices"][0]["text"] for part in parts) == "I am"
    assert "usage" not in parts[0]
    routed = client.post("/v1/completions", json={"model": "auto", "prompt": [LAW[0]["content"]]})
    assert routed.headers["x-mom-expert"] == "lex"


def test_the_prompt_has_the_experts_own_form(serve: Serve) -> None:
    bio, lex = ScriptedRuntime(), ScriptedRuntime()
    client = serve(bio=bio, lex=lex)
    chat(client, model="bio", messages=[{"role": "user", "content": "Why?"}])
    chat(client, model="lex", messages=[{"role": "developer", "content": "Be brief"}])
    assert bio.seen == ["Question: Why?\nAnswer:"]
    assert lex.seen == ["<start_of_turn>system\nBe brief<end_of_turn>\n<start_of_turn>model\n"]


def test_stop_strings_over_pieces_and_leading_space(serve: Serve) -> None:
    runtime = ScriptedRuntime(default="  \n one two\nQuestion: three")
    client = serve(bio=runtime, lex=runtime)
    assert chat(client, model="bio")["choices"][0]["message"]["content"] == "one two"
    cut = chat(client, model="bio", stop=["e tw", "never"])["choices"][0]
    assert (cut["message"]["content"], cut["finish_reason"]) == ("on", "stop")
    assert "Question" in chat(client, model="lex")["choices"][0]["message"]["content"]


class Recording(ScriptedRuntime):
    """Records the sampling parameters."""

    def generate(self, prompt, sampling):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        self.sampling = sampling
        return super().generate(prompt, sampling)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {"max_tokens": 512, "temperature": 0.7, "seed": None}),
        (
            {"max_tokens": 7, "temperature": 0, "top_p": 0.5, "seed": 3, "stop": "x"},
            {"max_tokens": 7, "top_p": 0.5},
        ),
        (
            {"max_completion_tokens": 9, "max_tokens": 7, "temperature": 0},
            {"max_tokens": 9, "temperature": 0},
        ),
        ({"max_tokens": 10**9, "seed": -1}, {"max_tokens": 4096, "seed": 2**32 - 2}),
        ({"temperature": None, "unknown": {"deep": [1]}}, {"temperature": 0.7}),
    ],
)
def test_sampling_is_honoured(body: dict[str, Any], expected: dict[str, Any], serve: Serve) -> None:
    recording = Recording()
    chat(serve(lex=recording), **body)
    assert {key: getattr(recording.sampling, key) for key in expected} == expected


def test_models(serve: Serve) -> None:
    client = serve()
    listed = client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["auto", "bio", "gen", "lex"]
    assert client.get("/v1/models/bio").json() == listed["data"][1]
    assert listed["data"][1] | {"created": 0} == {
        "id": "bio",
        "object": "model",
        "created": 0,
        "owned_by": "mom",
        "domain": "biochem",
        "type": "bf16",
        "bytes": 4,
    }
    assert client.get("/v1/models/auto").json()["id"] == "auto"


def test_route_explains_without_running(serve: Serve) -> None:
    lex = ScriptedRuntime()
    client = serve(lex=lex)
    decision = client.post("/route", json={"query": LAW[0]["content"]}).json()
    assert set(decision) == {
        "expert",
        "domain",
        "confidence",
        "margin",
        "distance",
        "fallback",
        "reason",
        "probabilities",
        "in_domain",
        "decided_by",
        "costs",
    }
    assert (decision["expert"], decision["domain"], decision["fallback"]) == ("lex", "law", False)
    assert client.post("/route", json={"messages": LAW}).json() == decision
    assert lex.seen == []


def test_health(serve: Serve) -> None:
    assert serve().get("/health").json() == {"status": "ok"}


def test_a_limit_on_answers(serve: Serve) -> None:
    client = serve(Limits(max_tokens=1))
    assert chat(client)["choices"][0]["finish_reason"] == "length"
