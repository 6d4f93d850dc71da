"""Malformed and hostile requests, and experts that fail, over HTTP."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from router.settings import Limits
from slices.errors import PromptTooLong, RunFailed
from slices.runtime import Piece, Sampling
from slices.runtimes.scripted import ScriptedRuntime

Serve = Callable[..., TestClient]
HI = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"


def error_of(answer: Any, status: int) -> dict[str, Any]:
    """The OpenAI error body of `answer`, checked for its form."""
    assert answer.status_code == status, answer.text
    body: dict[str, dict[str, Any]] = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] and "\n" not in body["error"]["message"]
    return body["error"]


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"[" * 50_000, b'{"messages": [{"role": "user"'],
    ids=repr,
)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/route"])
def test_what_is_no_json_object(path: str, raw: bytes, serve: Serve) -> None:
    assert error_of(serve().post(path, content=raw), 400)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages"),
        ({"messages": [{"role": "system", "content": "hi"}]}, "messages"),
        ({"messages": HI * 513}, "messages"),
        ({"messages": [{"role": "user", "content": "a" * 400_001}]}, "messages"),
        ({"messages": HI, "model": ""}, "model"),
        ({"messages": HI, "model": 3}, "model"),
        ({"messages": HI, "temperature": 2.1}, "temperature"),
        ({"messages": HI, "temperature": "hot"}, "temperature"),
        ({"messages": HI, "top_p": -0.1}, "top_p"),
        ({"messages": HI, "max_tokens": 0}, "max_tokens"),
        ({"messages": HI, "max_tokens": True}, "max_tokens"),
        ({"messages": HI, "max_completion_tokens": -1}, "max_completion_tokens"),
        ({"messages": HI, "seed": 1.5}, "seed"),
        ({"messages": HI, "seed": 10**30}, "seed"),
        ({"messages": HI, "stop": ""}, "stop"),
        ({"messages": HI, "stop": ["a"] * 17}, "stop"),
        ({"messages": HI, "n": 9}, "n"),
        ({"messages": HI, "model": None}, "model"),
        ({"messages": HI, "model": ""}, "model"),
        ({"messages": HI, "top_logprobs": 3}, None),
        ({"messages": HI, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"messages": HI, "tools": [{"type": "function"}]}, "tools"),
        ({"messages": HI, "functions": [{"name": "f"}]}, "functions"),
        ({"messages": HI, "response_format": {"type": "xml"}}, "response_format"),
        ({"messages": HI, "response_format": {"type": "json_schema"}}, "response_format"),
        ({"messages": HI, "stream": "yes"}, "stream"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_field_is_named(body: dict[str, object], param: str, serve: Serve) -> None:
    assert error_of(serve().post(CHAT, json={"model": "auto"} | body), 400)["param"] == param


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none(value: str, serve: Serve) -> None:
    raw = f'{{"model": "auto", "messages": {json.dumps(HI)}, "temperature": {value}}}'
    assert error_of(serve().post(CHAT, content=raw), 400)["param"] == "temperature"


@pytest.mark.parametrize("body", [{"prompt": [1, 2]}, {"prompt": ["a", "b"]}, {"prompt": None}, {}])
def test_prompts_that_are_not_one_text(body: dict[str, object], serve: Serve) -> None:
    assert error_of(serve().post("/v1/completions", json={"model": "auto"} | body), 400)["param"] == "prompt"


@pytest.mark.parametrize("body", [{}, {"query": 3}, {"query": "a", "messages": HI}, {"messages": []}])
def test_route_wants_one_query(body: dict[str, object], serve: Serve) -> None:
    error_of(serve().post("/route", json=body), 400)


@pytest.mark.parametrize("name", ["nope", "../../etc/passwd", "a/b", "%2e%2e%2f", "\x00", "'; --", "é" * 50])
def test_unknown_models(name: str, serve: Serve) -> None:
    client = serve()
    error = error_of(client.post(CHAT, json={"messages": HI, "model": name}), 404)
    assert error["code"] == "model_not_found"
    if name.isascii() and name.isprintable():
        error_of(client.get(f"/v1/models/{name}"), 404)


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "", " ", "\u2028", "\U0001f9ec" * 1000])
def test_odd_text_is_answered(text: str, serve: Serve) -> None:
    client = serve()
    messages = [{"role": "user", "content": text}]
    assert client.post(CHAT, json={"model": "auto", "messages": messages}).status_code == 200
    assert client.post("/route", json={"query": text}).status_code == 200


def test_nothing_to_route_on_goes_to_the_generalist(serve: Serve) -> None:
    decision = serve().post("/route", json={"query": "  "}).json()
    assert (decision["expert"], decision["fallback"]) == ("gen", True)


def test_a_lone_surrogate_is_refused(serve: Serve) -> None:
    raw = rb'{"messages": [{"role": "user", "content": "\ud800"}]}'
    error_of(serve().post(CHAT, content=raw), 400)


@pytest.mark.parametrize(
    "field",
    [
        rb'"stop": "\udfff"',
        rb'"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": "\ud800"}}}',
        rb'"unknown": "\ud800"',
    ],
)
def test_a_lone_surrogate_is_refused_in_every_field(field: bytes, serve: Serve) -> None:
    raw = rb'{"model": "bio", "messages": [{"role": "user", "content": "hi"}], ' + field + b"}"
    assert "hex escape" in str(error_of(serve().post(CHAT, content=raw), 400)["message"])


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 200),
        ("application/json; charset=utf-8", 200),
        ("text/plain", 400),
        ("multipart/form-data", 400),
    ],
)
def test_a_body_of_another_content_type_is_refused(
    content_type: str | None, status: int, serve: Serve
) -> None:
    """Without a content type it is read as JSON."""
    headers = {"content-type": content_type} if content_type else {}
    answer = serve().post(CHAT, content=json.dumps({"model": "bio", "messages": HI}), headers=headers)
    assert answer.status_code == status
    if status == 400:
        assert "content-type: application/json" in str(error_of(answer, 400)["message"])


def test_a_body_in_another_encoding_is_refused(serve: Serve) -> None:
    raw = json.dumps({"model": "bio", "messages": HI}).encode("utf-16")
    assert "not JSON" in str(error_of(serve().post(CHAT, content=raw), 400)["message"])


def test_u2028_in_an_answer_stays_on_its_line(serve: Serve) -> None:
    client = serve(gen=ScriptedRuntime(default="a\u2028b"))
    answer = client.post(CHAT, json={"messages": HI, "model": "gen", "stream": True})
    assert len(answer.text.splitlines()) == len(answer.text.split("\n")) - 1
    assert r"a\u2028b" in answer.text


def test_a_body_over_the_limit_is_refused(serve: Serve) -> None:
    client = serve(Limits(body_bytes=1024))
    fits = json.dumps({"model": "auto", "messages": HI}).encode().ljust(1024)
    assert client.post(CHAT, content=fits).status_code == 200
    error_of(client.post(CHAT, content=fits + b" "), 413)


def test_a_body_over_the_limit_is_not_read_to_its_end(serve: Serve) -> None:
    """Without a content-length, the limit holds while the body comes in."""
    sent = []

    def endless() -> Iterator[bytes]:
        for _ in range(64):
            sent.append(1)
            yield b" " * 1024

    error_of(serve(Limits(body_bytes=2048)).post(CHAT, content=endless()), 413)


def test_a_length_that_lies_is_refused_at_once(serve: Serve) -> None:
    answer = serve().post(CHAT, content=b"{}", headers={"content-length": "99999999999999"})
    error_of(answer, 413)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v2/models", 404),
        ("POST", "/v1/models", 405),
        ("GET", CHAT, 405),
        ("GET", "/v1/models/", 404),
        ("POST", "/v1/chat/completions/", 404),
    ],
)
def test_unknown_routes_and_methods(method: str, path: str, status: int, serve: Serve) -> None:
    error_of(serve().request(method, path), status)


class Failing(ScriptedRuntime):
    """Fails before or after the first piece."""

    def __init__(self, error: Exception, after: int) -> None:
        super().__init__()
        self.error, self.after = error, after

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        for _ in range(self.after):
            yield Piece("begun")
        raise self.error


def test_an_expert_that_fails_is_reported(serve: Serve) -> None:
    client = serve(bio=Failing(RunFailed("out of memory"), 0))
    error = error_of(client.post(CHAT, json={"messages": HI, "model": "bio"}), 503)
    assert (error["message"], error["type"]) == ("out of memory", "server_error")


def test_an_unforeseen_error_tells_nothing_of_the_inside(serve: Serve) -> None:
    client = serve(bio=Failing(KeyError("secret"), 0))
    assert "secret" not in error_of(client.post(CHAT, json={"messages": HI, "model": "bio"}), 503)["message"]


def test_an_expert_that_fails_midway_ends_the_stream_with_an_error(serve: Serve) -> None:
    client = serve(bio=Failing(RunFailed("out of memory"), 1))
    answer = client.post(CHAT, json={"messages": HI, "model": "bio", "stream": True})
    last = [line for line in answer.text.split("\n\n") if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == "out of memory"


class _ShortMemory(ScriptedRuntime):
    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        raise PromptTooLong("the prompt has 9 tokens, but the context holds 8")


def test_a_prompt_beyond_the_context_is_the_callers_fault(serve: Serve) -> None:
    answer = serve(lex=_ShortMemory()).post(CHAT, json={"model": "lex", "messages": HI})
    assert error_of(answer, 400)["code"] == "context_length_exceeded"
