"""Soak test: an hour of queries from every domain, and the service's memory over time.

    python -m benchmarks.serving.soak law-words biochem-words general-all --minutes 60

The queries are those of the domain files, in an order drawn by `--seed`, half of them streamed, up to
`--requests`. Memory is the PSS of the service's process tree, sampled once a minute; its growth is from the
sample after `--settle` minutes to the last one.
"""

import argparse
import asyncio
import json
import os
import sys
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import httpx

from benchmarks.paths import RESULTS
from benchmarks.serving.load_client import client
from benchmarks.serving.process import Service, resident_bytes, serving
from router.serving.build import domain_queries

OUT = RESULTS / "soak.json"
CHAT = "/v1/chat/completions"


class Load:
    """Clients that send queries until the time or the requests are used up, and counts of the responses."""

    def __init__(self, service: Service, args: argparse.Namespace) -> None:
        self._service, self._args = service, args
        self._random = Random(args.seed)
        self._queries = [text for texts in domain_queries().values() for text in texts]
        self._remaining, self._deadline = count(args.requests, -1), monotonic() + 60 * args.minutes
        self.statuses: Counter[str] = Counter()
        self.experts: Counter[str] = Counter()
        self.memory: list[int] = []

    async def run(self) -> None:
        """Send queries, and sample memory each minute."""
        async with client(self._service.url) as http:
            sampler = asyncio.create_task(self._sample_memory())
            await asyncio.gather(*(self._client(http) for _ in range(self._args.clients)))
            sampler.cancel()
            with suppress(asyncio.CancelledError):
                await sampler
        self.memory.append(resident_bytes(self._service.pid))

    async def _sample_memory(self) -> None:
        while True:
            await asyncio.sleep(60)
            self.memory.append(await asyncio.to_thread(resident_bytes, self._service.pid))
            print(
                f"{len(self.memory)} min, {self.memory[-1]:,} bytes, {dict(self.statuses)}", file=sys.stderr
            )

    async def _client(self, http: httpx.AsyncClient) -> None:
        while monotonic() < self._deadline and next(self._remaining) > 0:
            messages = [{"role": "user", "content": self._random.choice(self._queries)}]
            body = {
                "model": "auto",
                "messages": messages,
                "max_tokens": 16,
                "stream": self._random.random() < 0.5,
            }
            self.statuses[await self._status(http, body)] += 1
            await asyncio.sleep(self._args.pause)

    async def _status(self, http: httpx.AsyncClient, body: dict[str, Any]) -> str:
        try:
            response = await http.post(CHAT, json=body, timeout=120)
        except httpx.HTTPError as error:
            return type(error).__name__
        self.experts[response.headers.get("x-mom-expert", "none")] += 1
        complete = not body["stream"] or response.text.endswith("data: [DONE]\n\n")
        return str(response.status_code) if complete else "truncated"


def main() -> None:
    """Serve, load, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slices", nargs="+", help="in $MOM_HOME, the generalist last")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--settle", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two queries of a client")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    args = parser.parse_args()
    capacity = {"max_num_seqs": 4, "max_model_len": 1024, "threads": args.threads}
    with serving(args.slices, type=args.type, default=capacity) as service:
        load = Load(service, args)
        asyncio.run(load.run())
    baseline = load.memory[min(args.settle, len(load.memory)) - 1]
    results = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {each: version(each) for each in ("llama-cpp-python", "ray", "fastapi")},
        "settings": {
            name: getattr(args, name) for name in ("minutes", "clients", "pause", "threads", "type")
        },
        "requests": sum(load.statuses.values()),
        "statuses": dict(load.statuses),
        "requests_by_expert": dict(load.experts),
        "memory_bytes_by_minute": load.memory,
        "memory_growth": load.memory[-1] / baseline - 1,
    }
    args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
