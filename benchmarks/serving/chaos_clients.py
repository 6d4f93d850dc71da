"""Clients of `python -m benchmarks.serving.chaos`, and counts of their responses."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import httpx

from benchmarks.serving.load_client import client

DEADLINE = 60.0  # seconds that a request may take
QUESTION = "Is a verbal contract enforceable against a landlord?"
CHAT = "/v1/chat/completions"


def body(model: str = "auto", tokens: int = 8, **more: Any) -> dict[str, Any]:
    """The body of a short chat completion."""
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": model, "messages": messages, "max_tokens": tokens, "seed": 1, **more}


@dataclass
class ResponseCounts:
    """Responses by status (0: none came), and the longest latency in seconds."""

    statuses: Counter[int]
    max_latency: float = 0.0

    @classmethod
    def new(cls) -> "ResponseCounts":
        """No response yet."""
        return cls(Counter())

    def to_json(self) -> dict[str, Any]:
        """The counts as in the results file."""
        total = sum(self.statuses.values())
        success_rate = self.statuses[200] / total if total else 0.0
        statuses = {str(status): count for status, count in sorted(self.statuses.items())}
        return {
            "requests": total,
            "statuses": statuses,
            "success_rate": success_rate,
            "max_latency_seconds": self.max_latency,
        }


async def ask(http: httpx.AsyncClient, counts: ResponseCounts, request: dict[str, Any]) -> int:
    """One unstreamed request; its status."""
    start = perf_counter()
    try:
        status = (await http.post(CHAT, json=request, timeout=2 * DEADLINE)).status_code
    except httpx.HTTPError:
        status = 0
    counts.statuses[status] += 1
    counts.max_latency = max(counts.max_latency, perf_counter() - start)
    return status


@asynccontextmanager
async def load(url: str, clients: int, request: dict[str, Any]) -> AsyncGenerator[ResponseCounts]:
    """Concurrent clients that repeat one request until the block ends."""
    counts, stop = ResponseCounts.new(), asyncio.Event()

    async def repeat(http: httpx.AsyncClient) -> None:
        while not stop.is_set():
            if await ask(http, counts, request) in (429, 503):
                await asyncio.sleep(0.2)

    async with client(url) as http:
        tasks = [asyncio.create_task(repeat(http)) for _ in range(clients)]
        try:
            yield counts
        finally:
            stop.set()
            await asyncio.gather(*tasks)
