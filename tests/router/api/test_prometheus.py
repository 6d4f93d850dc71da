"""Readiness and metrics over HTTP."""

from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from router.settings import Limits
from slices.errors import RunFailed
from slices.runtime import Piece, Sampling
from slices.runtimes.scripted import ScriptedRuntime

Serve = Callable[..., TestClient]
LAW = [{"role": "user", "content": "Is a verbal contract enforceable?"}]


class Failing(ScriptedRuntime):
    """Fails the first `times` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        if self.left:
            self.left -= 1
            raise RunFailed("no memory for the context")
        return super().generate(prompt, sampling)


def samples(client: TestClient) -> dict[tuple[str, ...], float]:
    """Every sample of /metrics by its name and its labels' values, labels in the order of their names."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_ready_means_that_every_expert_said_a_token(serve: Serve) -> None:
    lex = ScriptedRuntime()
    client = serve(lex=lex)
    answer = client.get("/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert answer.json()["experts"] == ["bio", "gen", "lex"]
    assert lex.seen == ["Hello"]


def test_an_expert_that_fails_is_named_and_tried_again(serve: Serve) -> None:
    with serve(lex=Failing(1)) as client:
        answer = client.get("/ready")
        assert answer.status_code == 503
        assert answer.json()["failed"] == {"lex": "no memory for the context"}
        assert client.get("/health").status_code == 200
        assert client.get("/ready").json()["status"] == "ready"


def test_requests_decisions_and_tokens_are_counted(serve: Serve) -> None:
    client = serve(Limits(max_tokens=3))
    for _ in range(2):
        client.post("/v1/chat/completions", json={"model": "auto", "messages": LAW})
    client.post("/v1/chat/completions", json={"messages": LAW, "model": "bio", "stream": True})
    client.post("/v1/chat/completions", content=b"{")
    client.get("/some/where/else?key=secret")
    found = samples(client)
    chat = "/v1/chat/completions"
    assert found["mom_http_requests_total", chat, "200"] == 3
    assert found["mom_http_requests_total", chat, "400"] == 1
    assert found["mom_http_requests_total", "other", "404"] == 1
    assert found["mom_routing_decisions_total", "hash-256", "law", "lex", "false"] == 2
    assert found["mom_routing_decisions_total", "name", "biochem", "bio", "false"] == 1
    assert found["mom_tokens_total", "lex", "completion"] == 6
    assert found["mom_tokens_total", "lex", "prompt"] > 0
    assert found["mom_time_to_first_token_seconds_count", "lex"] == 2
    assert found["mom_num_requests_running", "lex"] == 0
    assert found["mom_http_request_duration_seconds_count", chat] == 4


@pytest.mark.parametrize("secret", ["verbal", "secret", "some/where"])
def test_no_text_of_a_request_is_in_the_counts(serve: Serve, secret: str) -> None:
    client = serve()
    client.post("/v1/chat/completions", json={"model": "auto", "messages": LAW})
    client.get("/some/where?key=secret")
    assert secret not in client.get("/metrics").text
