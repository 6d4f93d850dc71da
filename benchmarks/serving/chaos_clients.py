"""Clients of python -m benchmarks.serving.chaos, and the count of what they got."""

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
    """A short question."""
    said = [{"role": "user", "content": QUESTION}]
    return {"model": model, "messages": said, "max_tokens": tokens, "seed": 1, **more}


@dataclass
class Tally:
    """What requests came to: how many of each status (0: no answer), and how long the slowest took."""

    statuses: Counter[int]
    slowest: float = 0.0

    @classmethod
    def new(cls) -> "Tally":
        """Of none."""
        return cls(Counter())

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        total = sum(self.statuses.values())
        share = self.statuses[200] / total if total else 0.0
        said = {str(status): count for status, count in sorted(self.statuses.items())}
        return {"requests": total, "statuses": said, "succeeded": share, "slowest_seconds": self.slowest}


async def ask(http: httpx.AsyncClient, tally: Tally, said: dict[str, Any]) -> int:
    """One unstreamed request; its status."""
    begun = perf_counter()
    try:
        status = (await http.post(CHAT, json=said, timeout=2 * DEADLINE)).status_code
    except httpx.HTTPError:
        status = 0
    tally.statuses[status] += 1
    tally.slowest = max(tally.slowest, perf_counter() - begun)
    return status


@asynccontextmanager
async def asking(url: str, clients: int, said: dict[str, Any]) -> AsyncGenerator[Tally]:
    """So many clients that ask one question after another."""
    tally, stop = Tally.new(), asyncio.Event()

    async def one(http: httpx.AsyncClient) -> None:
        while not stop.is_set():
            if await ask(http, tally, said) in (429, 503):
                await asyncio.sleep(0.2)

    async with client(url) as http:
        tasks = [asyncio.create_task(one(http)) for _ in range(clients)]
        try:
            yield tally
        finally:
            stop.set()
            await asyncio.gather(*tasks)
