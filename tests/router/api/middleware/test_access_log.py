"""The access log: its fields, and what is never in it."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from router.api.app import Service
from router.api.middleware.access_log import FILE_BYTES, PROMPT_CHARS, AccessLogMiddleware, open_log
from router.api.middleware.api_keys import ApiKeys
from tests.router.api.test_failover import Dying

CHAT = "/v1/chat/completions"
LAW = "Is a verbal contract enforceable?"
Serve = Callable[..., TestClient]


def ask(text: str = LAW, **more: object) -> dict[str, object]:
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **more}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("stream", [False, True])
def test_a_line_has_the_expert_and_no_text(serve: Serve, tmp_path: Path, stream: bool) -> None:
    client = serve(log=tmp_path / "logs" / "access.jsonl")
    answer = client.post(CHAT, json=ask(stream=stream), headers={"x-request-id": "mine-1"})
    (line,) = lines(tmp_path / "logs" / "access.jsonl")
    assert (line["status"], line["expert"], line["fallback"], line["request_id"]) == (
        200,
        "lex",
        False,
        "mine-1",
    )
    assert 0.25 < line["confidence"] <= 1 and line["request_bytes"] == len(answer.request.content)
    assert (line["method"], line["path"]) == ("POST", CHAT)
    assert 0 < line["duration_seconds"] < 60 and line["timestamp"].endswith("+00:00")
    assert line["completion_tokens"] == 3 and line["prompt_tokens"] > len(LAW)
    assert answer.headers["x-request-id"] == line["request_id"]
    assert "error" not in line
    written = (tmp_path / "logs" / "access.jsonl").read_text(encoding="utf-8")
    assert "contract" not in written and "I am lex" not in written


def test_prompts_are_logged_if_set(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    client = serve(log=path, log_prompts=True)
    client.post(CHAT, json=ask(f"{LAW}\n" * 100))
    client.post("/v1/completions", json={"model": "bio", "prompt": "A cell\u2028is"})
    first, second = (line["prompt"] for line in lines(path))
    assert first.startswith(LAW) and len(first) == PROMPT_CHARS
    assert second == "A cell\u2028is"


def test_failures_are_logged_and_probes_only_then(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    client = serve(log=path)
    client.get("/health")
    client.get("/metrics")
    client.post(CHAT, content=b"{")
    client.get('/no%0Asuch"path')
    client.post("/health")
    logged = [(line["status"], line["path"]) for line in lines(path)]
    assert logged == [(400, CHAT), (404, '/no\nsuch"path'), (405, "/health")]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3, "no path begins a line of its own"


def test_an_error_is_logged_by_its_code(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: Service) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Service, "list_experts", broken)
    path = tmp_path / "access.jsonl"
    client = serve(log=path, lex=Dying(pieces=1))
    client.get("/v1/models/law")
    client.post(CHAT, json=ask() | {"model": "law"})
    client.post(CHAT, json=ask(stream=True))
    client.get("/experts")
    client.post(CHAT, content=b"x" * 2_000_000)
    serve(log=path, keys=ApiKeys({})).get("/v1/models")
    assert [(line["status"], line["error"]) for line in lines(path)] == [
        (404, "model_not_found"),
        (404, "model_not_found"),
        (200, "expert_failed"),
        (500, "server_error"),
        (413, "invalid_request_error"),
        (401, "invalid_api_key"),
    ]


def test_an_incomplete_response_is_unfinished(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start: Message = {"type": "http.response.start", "status": 200, "headers": []}
    part: Message = {"type": "http.response.body", "body": b"data: {}", "more_body": True}
    end: Message = {"type": "http.response.body", "body": b""}

    def logged(*messages: Message, error: BaseException | None = None) -> dict[str, Any]:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for message in messages:
                await send(message)
            if error is not None:
                raise error

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            pass

        caplog.clear()
        log, scope = logging.getLogger("test.access"), {"type": "http", "method": "GET", "path": "/x"}
        with caplog.at_level(logging.INFO, "test.access"):
            try:
                asyncio.run(AccessLogMiddleware(app, log)(scope, receive, send))
            except (OSError, asyncio.CancelledError) as raised:
                assert raised is error
        (record,) = caplog.records
        line: dict[str, Any] = json.loads(record.getMessage())
        return {key: line[key] for key in ("status", "error") if key in line}

    assert logged(start, part, end) == {"status": 200}
    assert logged(start, part) == {"status": 200, "error": "unfinished"}
    assert logged(start, part, error=OSError()) == {"status": 200, "error": "unfinished"}
    assert logged(start, part, error=asyncio.CancelledError()) == {"status": 200, "error": "unfinished"}
    assert logged() == logged(error=asyncio.CancelledError()) == {"status": 499}
    assert logged(error=OSError()) == {"status": 500, "error": "server_error"}


def test_the_file_is_rotated(tmp_path: Path) -> None:
    log = open_log(tmp_path / "access.jsonl")
    for _ in range(12):
        log.info("x" * (FILE_BYTES // 10))
    for handler in log.handlers:
        handler.close()
    assert (tmp_path / "access.jsonl.1").stat().st_size <= FILE_BYTES
    assert (tmp_path / "access.jsonl").stat().st_size < FILE_BYTES
