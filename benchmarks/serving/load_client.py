"""HTTP load clients that time streamed completions of a running service, shared by the serving benchmarks."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from time import perf_counter
from typing import Any

import httpx

from benchmarks.paths import README

PROSE = README
PROMPT_BYTES = 230  # about 64 tokens
TIMEOUT = 600.0  # seconds of one answer


@dataclass(frozen=True)
class TimedCompletion:
    """One completion: seconds to its first text and to its end, token counts, HTTP status, expert."""

    first_text_seconds: float
    total_seconds: float
    prompt_tokens: int
    completion_tokens: int
    status: int = 200
    expert: str = ""


@asynccontextmanager
async def client(url: str) -> AsyncGenerator[httpx.AsyncClient]:
    """A client with room for many streams."""
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=limits) as made:
        yield made


async def complete(
    http: httpx.AsyncClient, body: dict[str, Any], path: str = "/v1/completions"
) -> TimedCompletion:
    """Stream one completion.

    Retried, and timed from there, where the server disconnects without a response, as llama-server may.
    """
    try:
        return await _complete(http, body, path)
    except httpx.RemoteProtocolError:
        return await _complete(http, body, path)


async def _complete(http: httpx.AsyncClient, body: dict[str, Any], path: str) -> TimedCompletion:
    start, first, usage = perf_counter(), None, dict[str, int]()
    body = body | {"stream": True, "stream_options": {"include_usage": True}}
    async with http.stream("POST", path, json=body) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            if first is None and any(_has_text(choice) for choice in event.get("choices", ())):
                first = perf_counter() - start
            usage = event.get("usage") or usage
        total = perf_counter() - start
        expert = response.headers.get("x-mom-expert", "")
        status = response.status_code
    return TimedCompletion(
        first_text_seconds=total if first is None else first,
        total_seconds=total,
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", 0),
        status=status,
        expert=expert,
    )


def _has_text(choice: dict[str, Any]) -> bool:
    return bool(choice.get("text") or choice.get("delta", {}).get("content"))


async def complete_all(
    url: str, bodies: Sequence[dict[str, Any]], streams: int
) -> tuple[list[TimedCompletion], float]:
    """All completions, `streams` at a time, and the seconds that all took."""
    semaphore = asyncio.Semaphore(streams)
    async with client(url) as http:

        async def one(body: dict[str, Any]) -> TimedCompletion:
            async with semaphore:
                return await complete(http, body)

        start = perf_counter()
        completions = await asyncio.gather(*(one(body) for body in bodies))
        return list(completions), perf_counter() - start


def prompts(count: int) -> list[str]:
    """Passages of about `PROMPT_BYTES` of prose, each with a prefix of its own, so that no prompt is in a
    server's prefix cache, in this round or the next.
    """
    text = " ".join(PROSE.read_text(encoding="utf-8").split())
    step = max(1, (len(text) - PROMPT_BYTES) // count)
    return [f"{uuid.uuid4().hex[:6]}: {text[at : at + PROMPT_BYTES]}" for at in range(0, step * count, step)]


def questions(queries: Sequence[str], count: int) -> list[str]:
    """Prompts made of a domain's queries in the same way, drawn anew at every call."""
    texts = []
    for _ in range(count):
        text = " ".join(Random().sample(list(queries), len(queries)))
        texts.append(f"{uuid.uuid4().hex[:6]}: {text[:PROMPT_BYTES]}")
    return texts
