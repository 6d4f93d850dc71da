"""What the OpenAI API promises beyond text: choices, probabilities, forms; with a real model in llama.cpp."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from router.api.json_grammar import MAX_COUNT, MAX_DEPTH, schema_grammar
from router.errors import BadRequest
from slices.export import export
from slices.runtime import Capacity
from slices.runtimes.llama_batcher import LlamaBatcher
from tests.slices.gguf_fixtures import FULL, SLIDING, write_gemma3

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASK: dict[str, Any] = {
    "model": "bio",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 6,
    "seed": 1,
}
NAMED = {"type": "function", "function": {"name": "elsewhere"}}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["a", "b"]}, "old": {"type": "boolean"}},
    "required": ["name", "old"],
}


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_gemma3(tmp_path_factory.mktemp("pico") / "pico", [SLIDING, FULL])
    return export(folder, folder / "pico.gguf")


@pytest.fixture
def client(serve: Callable[..., TestClient], gguf: Path) -> TestClient:
    capacity = Capacity(max_num_seqs=2, max_model_len=512, threads=1)
    return serve(batcher=partial(LlamaBatcher, gguf, capacity))


def post(client: TestClient, path: str = CHAT, **body: object) -> Any:
    answer = client.post(path, json=(ASK if path == CHAT else {}) | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def chunks(client: TestClient, path: str = CHAT, **body: object) -> list[Any]:
    answer = client.post(path, json=(ASK if path == CHAT else {}) | body | {"stream": True})
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_choices_differ_and_the_first_is_that_of_one(client: TestClient) -> None:
    """More choices than there are places: the third waits for one."""
    several = post(client, n=3)
    texts = [choice["message"]["content"] for choice in several["choices"]]
    assert [choice["index"] for choice in several["choices"]] == [0, 1, 2]
    assert len(set(texts)) > 1
    alone = post(client)
    assert alone["choices"][0]["message"]["content"] == texts[0]
    assert post(client, seed=2)["choices"][0]["message"]["content"] == texts[1]
    usage = several["usage"]
    assert usage["prompt_tokens"] == alone["usage"]["prompt_tokens"]
    assert usage["completion_tokens"] > alone["usage"]["completion_tokens"]


def test_streamed_choices_are_those_of_the_whole_answer(client: TestClient) -> None:
    whole = post(client, n=2)
    texts = ["", ""]
    ends: list[list[str]] = [[], []]
    for chunk in chunks(client, n=2):
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
        ends[choice["index"]] += [choice["finish_reason"]] if choice["finish_reason"] else []
    assert texts == [choice["message"]["content"] for choice in whole["choices"]]
    assert ends == [[choice["finish_reason"]] for choice in whole["choices"]]


def test_probabilities_of_a_chat(client: TestClient) -> None:
    choice = post(client, logprobs=True, top_logprobs=3)["choices"][0]
    logprobs = choice["logprobs"]["content"]
    assert len(logprobs) == 6
    for token in logprobs:
        values = [each["logprob"] for each in token["top_logprobs"]]
        assert len(values) == 3 and values == sorted(values, reverse=True)
        assert token["logprob"] <= 0 and bytes(token["bytes"]).decode(errors="replace") == token["token"]
    streamed = [
        token
        for chunk in chunks(client, logprobs=True, top_logprobs=3)
        for token in (chunk["choices"][0].get("logprobs") or {"content": []})["content"]
    ]
    assert [token["token"] for token in streamed] == [token["token"] for token in logprobs]
    assert post(client)["choices"][0]["logprobs"] is None
    assert post(client, logprobs=True)["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


def test_probabilities_of_a_completion(client: TestClient) -> None:
    body = {"model": "bio", "prompt": "Hi", "max_tokens": 5, "temperature": 0, "logprobs": 2}
    logprobs = post(client, TEXT, **body)["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == len(logprobs["text_offset"]) == 5
    for token, value, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert top[token] == value == max(top.values()), "greedy takes the likeliest"
    assert logprobs["text_offset"][0] == 0


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_has_the_form_asked_for(client: TestClient, seed: int) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "cat", "schema": SCHEMA}}
    choice = post(client, response_format=form, seed=seed, max_tokens=200)["choices"][0]
    assert choice["finish_reason"] == "stop"
    found = json.loads(choice["message"]["content"])
    assert found["name"] in ("a", "b") and isinstance(found["old"], bool) and len(found) == 2


def test_any_object_begins_as_one(client: TestClient) -> None:
    choice = post(client, response_format={"type": "json_object"}, max_tokens=100)["choices"][0]
    content = choice["message"]["content"]
    assert content.startswith("{")
    assert choice["finish_reason"] == "length" or isinstance(json.loads(content), dict)
    plain = post(client, response_format={"type": "text"})["choices"][0]["message"]["content"]
    assert plain == post(client)["choices"][0]["message"]["content"]


DEEP: dict[str, Any] = {"type": "object"}
for _ in range(MAX_DEPTH + 1):
    DEEP = {"type": "object", "properties": {"a": DEEP}}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array", "items": {"type": "string"}, "minItems": 10**7}, f"more than {MAX_COUNT}"),
        ({"type": "string", "maxLength": 10**9}, "maxLength"),
        ({"type": "string", "pattern": "^(a|a)*$"}, "pattern"),
        ({"$ref": "http://127.0.0.1/x.json"}, "nothing is fetched"),
        ({"$ref": "#/$defs/none"}, "cannot be turned into a grammar"),
        ({"type": "nonsense"}, "Unrecognized"),
        ({"properties": {"a": True}}, "cannot be turned into a grammar"),
        ({"enum": ["x" * 70_000]}, "bytes"),
        (DEEP, "deep"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_schema_that_would_cost_too_much_is_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message) as refused:
        schema_grammar(schema)
    assert refused.value.param == "response_format"


def test_what_cannot_be_granted_is_refused_over_http(client: TestClient) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    for path, body, param in (
        (CHAT, {"tools": [tool]}, "tools"),
        (CHAT, {"tools": [tool], "tool_choice": "auto"}, "tools"),
        (CHAT, {"tools": [tool], "tool_choice": NAMED}, "tool_choice"),
        (
            CHAT,
            {"response_format": {"type": "json_schema", "json_schema": {"schema": DEEP}}},
            "response_format",
        ),
        (TEXT, {"model": "bio", "prompt": "a", "echo": True}, "echo"),
        (TEXT, {"model": "bio", "prompt": "a", "suffix": "b"}, "suffix"),
    ):
        answer = client.post(path, json=(ASK if path == CHAT else {}) | body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert post(client, tools=[], tool_choice="none")["choices"]


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_function_that_must_be_called_is_called(client: TestClient, choice: object) -> None:
    """Each with arguments of its own form; the caller reads the arguments as JSON."""
    tools = [{"type": "function", "function": {"name": "cat", "parameters": SCHEMA}}]
    tools += [{"type": "function", "function": {"name": "dog"}}] if choice == "required" else []
    asking: dict[str, Any] = {
        "tools": tools,
        "tool_choice": {**NAMED, "function": {"name": "cat"}} if choice is NAMED else choice,
    }
    whole = post(client, max_tokens=300, **asking)["choices"][0]
    assert whole["finish_reason"] == "tool_calls" and whole["message"]["content"] is None
    (call,) = whole["message"]["tool_calls"]
    arguments = json.loads(call["function"]["arguments"])
    if call["function"]["name"] == "cat":
        assert arguments["name"] in ("a", "b") and isinstance(arguments["old"], bool)
    else:
        assert call["function"]["name"] == "dog" and choice == "required"
    deltas = [chunk["choices"][0] for chunk in chunks(client, max_tokens=300, **asking)]
    (streamed,) = [each for each in deltas if each["delta"].get("tool_calls")]
    assert streamed["delta"]["tool_calls"][0]["function"] == call["function"]
    assert streamed["finish_reason"] == "tool_calls"
    cut = post(client, max_tokens=3, **asking)["choices"][0]
    assert (cut["finish_reason"], cut["message"].get("tool_calls")) == ("length", None)


def test_a_script_cannot_follow_a_grammar_and_says_so(serve: Callable[..., TestClient]) -> None:
    answer = serve().post(CHAT, json=ASK | {"response_format": {"type": "json_object"}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported")
