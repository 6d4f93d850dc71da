"""What is written of each request, and what never is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from router.logs import FILE_BYTES, PROMPT, open_log

CHAT = "/v1/chat/completions"
LAW = "Is a verbal contract enforceable?"
Serve = Callable[..., TestClient]


def ask(text: str = LAW, **more: object) -> dict[str, object]:
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **more}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("stream", [False, True])
def test_a_line_tells_who_answered_and_not_what_was_said(serve: Serve, tmp_path: Path, stream: bool) -> None:
    client = serve(log=tmp_path / "logs" / "access.jsonl")
    answer = client.post(CHAT, json=ask(stream=stream), headers={"x-request-id": "mine-1"})
    (line,) = lines(tmp_path / "logs" / "access.jsonl")
    assert (line["status"], line["expert"], line["fallback"], line["id"]) == (200, "lex", "false", "mine-1")
    assert (line["method"], line["path"]) == ("POST", CHAT)
    assert 0 < line["seconds"] < 60 and line["time"].endswith("+00:00")
    assert line["completion_tokens"] == 3 and line["prompt_tokens"] > len(LAW)
    assert answer.headers["x-request-id"] == line["id"]
    written = (tmp_path / "logs" / "access.jsonl").read_text(encoding="utf-8")
    assert "contract" not in written and "I am lex" not in written


def test_prompts_are_written_where_that_is_wanted(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    client = serve(log=path, log_prompts=True)
    client.post(CHAT, json=ask(f"{LAW}\n" * 100))
    client.post("/v1/completions", json={"model": "bio", "prompt": "A cell\u2028is"})
    first, second = (line["prompt"] for line in lines(path))
    assert first.startswith(LAW) and len(first) == PROMPT
    assert second == "A cell\u2028is"


def test_failures_are_written_and_watchers_only_then(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    client = serve(log=path)
    client.get("/health")
    client.get("/metrics")
    client.post(CHAT, content=b"{")
    client.get('/no%0Asuch"path')
    client.post("/health")
    told = [(line["status"], line["path"]) for line in lines(path)]
    assert told == [(400, CHAT), (404, '/no\nsuch"path'), (405, "/health")]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3, "no path begins a line of its own"


def test_the_file_begins_anew_before_it_is_too_long(tmp_path: Path) -> None:
    log = open_log(tmp_path / "access.jsonl")
    for _ in range(12):
        log.info("x" * (FILE_BYTES // 10))
    for handler in log.handlers:
        handler.close()
    assert (tmp_path / "access.jsonl.1").stat().st_size <= FILE_BYTES
    assert (tmp_path / "access.jsonl").stat().st_size < FILE_BYTES
