#!/usr/bin/env python
"""Time the service against llama.cpp's own `llama-server`: the same GGUF, threads and slots, on one machine.

    scripts/bench_serve.py law-words general-all --llama-server PATH

The first slice is also given to llama-server. Both take turns in every round, so that a busy spell of the
machine meets both; ratios are taken within a round and their spread is the machine's noise. Throughput is in
tokens written a second over all streams; the time to the first text of ours includes routing (`auto`). The
last of the slices is the generalist, and stands for the parent where it is one of all layers and words. The
mixed load is questions of the domain files that are served, sent once to `auto` and once to the parent alone.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Any

from serve_load import Told, ask, client, prompts, together
from serve_process import free_port, resident, running, serving

from router.build import domain_queries
from slices import home, manifest

OUT = Path(__file__).resolve().parent.parent / "benchmarks" / "serve.json"
STREAMS = (1, 4, 16)
CONTEXT = 1024


@contextmanager
def theirs(file: Path, args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """`llama-server` with this file; its address and pid."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        str(args.llama_server), "-m", str(file), "--host", "127.0.0.1", "--port", str(port),
        "-t", str(args.threads), "-tb", str(args.threads), "-np", str(args.slots),
        "-c", str(CONTEXT * args.slots), "--no-webui",
    ]  # fmt: skip
    with running(command, url, "/health") as pid:
        yield url, pid


def throughput(url: str, model: str, streams: int, number: int, tokens: int) -> float:
    """Tokens written a second over `streams` at a time."""
    count = max(2 * streams, 4)
    bodies = [
        {
            "model": model,
            "prompt": text,
            "max_tokens": tokens,
            "temperature": 1.0,
            "seed": number,
            "top_k": 64,
        }
        for text in prompts(count)
    ]
    found, seconds = asyncio.run(together(url, bodies, streams))
    check(found)
    return sum(told.tokens for told in found) / seconds


def mixed(url: str, model: str, number: int, args: argparse.Namespace) -> tuple[float, Counter[str]]:
    """Requests a second with questions from every domain that is served, and who answered."""
    queries = domain_queries()
    served = [manifest.read(home.home() / "slices" / name).domain for name in args.slices]
    asked = [query for each in served for query in Random(number).sample(queries[each], args.mixed)]
    Random(number).shuffle(asked)
    bodies = [{"model": model, "prompt": text, "max_tokens": args.tokens, "seed": number} for text in asked]
    found, seconds = asyncio.run(together(url, bodies, args.slots))
    check(found)
    return len(found) / seconds, Counter(told.expert for told in found)


def first_texts(url: str, model: str, count: int) -> list[float]:
    """Seconds to the first text of one answer after another."""

    async def one_by_one() -> list[Told]:
        async with client(url) as http:
            bodies = [{"model": model, "prompt": text, "max_tokens": 2, "seed": 1} for text in prompts(count)]
            return [await ask(http, body) for body in bodies]

    found = asyncio.run(one_by_one())
    check(found)
    return [told.first for told in found]


def check(found: Sequence[Told]) -> None:
    """A benchmark of refused requests would mean nothing."""
    if bad := [told.status for told in found if told.status != 200 or not told.tokens]:
        raise SystemExit(f"{len(bad)} of {len(found)} answers failed or were empty: {bad[:3]}")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Of milliseconds."""
    cuts = quantiles([1000 * value for value in values], n=20, method="inclusive")
    return {"p50": cuts[9], "p95": cuts[18]}


def measure(args: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Every figure."""
    expert, generalist = args.slices[0], args.slices[-1]
    found: dict[str, Any] = {"memory": {}, "throughput": {}, "first_text_ms": {}}
    speeds: dict[str, dict[int, list[float]]] = {"ours": {}, "theirs": {}, "parent": {}}
    first: dict[str, list[float]] = {"ours": [], "ours_named": [], "theirs": []}
    load: dict[str, list[float]] = {"mixture": [], "parent": []}
    answered = {who: Counter[str]() for who in load}
    capacity = {"answers": args.slots, "context": CONTEXT, "threads": args.threads, "queue": 256}
    started = serving(args.slices, type=args.type, default=capacity)
    with started as service, theirs(file, args) as (other, other_pid):
        mine = service.url
        for url, model in ((mine, expert), (other, expert), (mine, generalist)):
            throughput(url, model, max(args.streams), 0, 8)  # warm up
        for number in range(1, args.rounds + 1):
            for streams in args.streams:
                for who, url, model in (
                    ("ours", mine, expert), ("theirs", other, expert), ("parent", mine, generalist)
                ):  # fmt: skip
                    speed = throughput(url, model, streams, number, args.tokens)
                    speeds[who].setdefault(streams, []).append(speed)
                    print(f"round {number}, {streams} streams, {who}: {speed:.1f} tokens/s", file=sys.stderr)
            for who, url, model in (
                ("ours", mine, "auto"), ("ours_named", mine, expert), ("theirs", other, expert)
            ):  # fmt: skip
                first[who] += first_texts(url, model, args.first)
            for who, model in (("mixture", "auto"), ("parent", generalist)):
                speed, by = mixed(mine, model, number, args)
                load[who].append(speed)
                answered[who] += by
                print(f"round {number}, mixed, {who}: {speed:.2f} requests/s", file=sys.stderr)
        found["memory"] = {"ours": resident(service.pid), "theirs": resident(other_pid)}
    for streams in args.streams:
        triples = list(zip(*(speeds[who][streams] for who in ("ours", "theirs", "parent")), strict=True))
        found["throughput"][str(streams)] = {
            **{who: spread(values[streams]) for who, values in speeds.items()},
            "against_llama_server": spread([our / their for our, their, _ in triples]),
            "against_parent": spread([our / parent for our, _, parent in triples]),
        }
    pairs = zip(load["mixture"], load["parent"], strict=True)
    found["mixed_requests_per_second"] = {
        **{who: spread(values) for who, values in load.items()},
        "against_parent": spread([mixture / parent for mixture, parent in pairs]),
        "answered_by": {who: dict(by) for who, by in answered.items()},
    }
    found["first_text_ms"] = {who: percentiles(values) for who, values in first.items()}
    return found


def main() -> None:
    """Measure, and write what came."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slices", nargs="+", help="names in $MOM_HOME: experts, the generalist last")
    parser.add_argument("--llama-server", type=Path, required=True)
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--streams", type=lambda text: [int(n) for n in text.split(",")], default=STREAMS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--first", type=int, default=10, help="answers a round for the time to first text")
    parser.add_argument("--mixed", type=int, default=8, help="questions of each domain in a round")
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    args = parser.parse_args()
    folder = home.home() / "slices" / args.slices[0]
    name = next(each.file for each in manifest.read(folder).quantized if each.type == args.type)
    found = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {each: version(each) for each in ("llama-cpp-python", "ray", "fastapi")},
        "settings": {
            key: getattr(args, key) for key in ("slices", "type", "threads", "slots", "rounds", "tokens")
        },
        "file_bytes": (folder / name).stat().st_size,
        **measure(args, folder / name),
    }
    args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
