"""Clients that ask a running service and time its answers, shared by the serving benchmarks."""

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
PATIENCE = 600.0  # seconds of one answer


@dataclass(frozen=True)
class Told:
    """One answer: seconds to its first text and to its end, the tokens of prompt and answer, its status."""

    first: float
    total: float
    prompt: int
    tokens: int
    status: int = 200
    expert: str = ""


@asynccontextmanager
async def client(url: str) -> AsyncGenerator[httpx.AsyncClient]:
    """A client with room for many streams."""
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as made:
        yield made


async def ask(http: httpx.AsyncClient, body: dict[str, Any], path: str = "/v1/completions") -> Told:
    """Stream one answer.

    Asked anew, and timed from there, where the server hangs up without a word, as llama-server may.
    """
    try:
        return await _ask(http, body, path)
    except httpx.RemoteProtocolError:
        return await _ask(http, body, path)


async def _ask(http: httpx.AsyncClient, body: dict[str, Any], path: str) -> Told:
    begun, first, usage = perf_counter(), None, dict[str, int]()
    body = body | {"stream": True, "stream_options": {"include_usage": True}}
    async with http.stream("POST", path, json=body) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            if first is None and any(_says(choice) for choice in event.get("choices", ())):
                first = perf_counter() - begun
            usage = event.get("usage") or usage
        total = perf_counter() - begun
        expert = answer.headers.get("x-mom-expert", "")
        status = answer.status_code
    read, written = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return Told(total if first is None else first, total, read, written, status, expert)


def _says(choice: dict[str, Any]) -> bool:
    return bool(choice.get("text") or choice.get("delta", {}).get("content"))


async def together(url: str, bodies: Sequence[dict[str, Any]], streams: int) -> tuple[list[Told], float]:
    """Ask them all, `streams` at a time; the answers, and the seconds that all took."""
    gate = asyncio.Semaphore(streams)
    async with client(url) as http:

        async def one(body: dict[str, Any]) -> Told:
            async with gate:
                return await ask(http, body)

        begun = perf_counter()
        found = await asyncio.gather(*(one(body) for body in bodies))
        return list(found), perf_counter() - begun


def prompts(count: int) -> list[str]:
    """Passages of about `PROMPT_BYTES` of prose, each begun by a number of its own: what a server
    remembers of one prompt helps it with no other, in this round or the next.
    """
    text = " ".join(PROSE.read_text(encoding="utf-8").split())
    step = max(1, (len(text) - PROMPT_BYTES) // count)
    return [f"{uuid.uuid4().hex[:6]}: {text[at : at + PROMPT_BYTES]}" for at in range(0, step * count, step)]


def questions(asked: Sequence[str], count: int) -> list[str]:
    """The same of a domain's questions, drawn anew at every call."""
    found = []
    for _ in range(count):
        text = " ".join(Random().sample(list(asked), len(asked)))
        found.append(f"{uuid.uuid4().hex[:6]}: {text[:PROMPT_BYTES]}")
    return found
