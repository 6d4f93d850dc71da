"""The service says truly what it takes and answers: schemathesis asks all that its description allows."""

from collections.abc import Callable
from typing import Any

import hypothesis
import schemathesis
from fastapi.testclient import TestClient

EXPECTED = {200, 400, 401, 404, 405, 413, 429, 503}
CASES = 60  # an endpoint; python -m benchmarks.serving.fuzz asks thousands


def test_bodies_and_errors_are_described(serve: Callable[..., TestClient]) -> None:
    document = serve().get("/openapi.json").json()
    body = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]
    chat = document["components"]["schemas"][body["schema"]["$ref"].rsplit("/", 1)[1]]
    assert set(chat["required"]) == {"model", "messages"}
    assert {"temperature", "n", "logprobs", "response_format", "tools"} <= set(chat["properties"])
    assert chat["properties"]["model"]["enum"] == ["auto", "bio", "gen", "lex"]
    refused = document["paths"]["/route"]["post"]["responses"]["400"]["content"]["application/json"]["schema"]
    assert refused["$ref"] == "#/components/schemas/Error"


def test_nothing_that_the_description_allows_breaks_the_service(serve: Callable[..., TestClient]) -> None:
    """Nor what it forbids: every answer has a foreseen status, and errors their form."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", serve().app)
    cases = 0
    for each in schema.get_all_operations():
        operation = each.ok()  # type: ignore[union-attr]

        @hypothesis.settings(
            max_examples=CASES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            nonlocal cases
            cases += 1
            answer = case.call()
            assert answer.status_code in EXPECTED, (case.as_curl_command(), answer.text[:500])
            if answer.status_code >= 400:
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

        ask()
    assert cases > 3 * CASES
