"""Time the service against llama.cpp's own `llama-server`: the same GGUF, threads and slots, on one machine.

    python -m benchmarks.serving.throughput law-words general-all --llama-server PATH

The first slice is also given to llama-server. Both take turns in every round, so that a busy spell of the
machine meets both; ratios are taken within a round and their spread is the machine's noise. Throughput is in
tokens written a second over all streams; the time to the first text of ours includes routing (`auto`), of
questions of the slice's domain; those that the router sends elsewhere are not timed. The
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from random import Random
from statistics import fmean, median, quantiles
from typing import Any

from benchmarks.paths import RESULTS
from benchmarks.serving.load_client import Told, ask, client, prompts, questions, together
from benchmarks.serving.process import free_port, resident, running, serving
from router.serving.build import domain_queries
from slices import home, manifest

OUT = RESULTS / "throughput.json"
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


def first_texts(starters: Mapping[str, tuple[str, str]], expert: str, count: int) -> dict[str, list[float]]:
    """Seconds to the first text of `count` answers of each, by turns, one after another; those of `expert`.

    Args:
        starters: who is asked: an address, and a model there.
    """
    asked = domain_queries()[manifest.read(home.home() / "slices" / expert).domain]

    async def by_turns() -> dict[str, list[Told]]:
        found: dict[str, list[Told]] = {who: [] for who in starters}
        async with AsyncExitStack() as stack:
            https = {url: await stack.enter_async_context(client(url)) for url, _ in starters.values()}
            for _ in range(count):
                for (who, (url, model)), text in zip(
                    starters.items(), questions(asked, len(starters)), strict=True
                ):
                    body = {"model": model, "prompt": text, "max_tokens": 2, "seed": 1}
                    found[who].append(await ask(https[url], body))
        return found

    found = asyncio.run(by_turns())
    check([told for each in found.values() for told in each])
    return {who: [told.first for told in each if told.expert in ("", expert)] for who, each in found.items()}


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


def one_round(number: int, mine: str, other: str, args: argparse.Namespace) -> dict[str, Any]:
    """Everything once, by who was asked: tokens/s, seconds to first texts, requests/s and who answered."""
    expert, generalist = args.slices[0], args.slices[-1]
    writers = {"ours": (mine, expert), "theirs": (other, expert), "parent": (mine, generalist)}
    starters = {"ours": (mine, "auto"), "ours_named": (mine, expert), "theirs": (other, expert)}
    found = {
        "speeds": {
            streams: {who: throughput(*asked, streams, number, args.tokens) for who, asked in writers.items()}
            for streams in args.streams
        },
        "first": first_texts(starters, expert, args.first),
        "mixed": {
            who: mixed(mine, model, number, args)
            for who, model in (("mixture", "auto"), ("parent", generalist))
        },
    }
    print(f"round {number}: {found['speeds']} tokens/s, {found['mixed']} requests/s", file=sys.stderr)
    return found


def ratios(rounds: Sequence[Mapping[str, float]], one: str, other: str) -> dict[str, float]:
    """Of two figures of the same round."""
    return spread([each[one] / each[other] for each in rounds])


def writing(rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Tokens/s of all rounds."""
    return {
        **{who: spread([each[who] for each in rounds]) for who in rounds[0]},
        "against_llama_server": ratios(rounds, "ours", "theirs"),
        "against_parent": ratios(rounds, "ours", "parent"),
    }


def answering(rounds: Sequence[Mapping[str, tuple[float, Counter[str]]]]) -> dict[str, Any]:
    """Requests/s of all rounds under the mixed load, and who answered."""
    speeds = [{who: speed for who, (speed, _) in each.items()} for each in rounds]
    return {
        **{who: spread([each[who] for each in speeds]) for who in speeds[0]},
        "against_parent": ratios(speeds, "mixture", "parent"),
        "answered_by": {
            who: dict(sum((each[who][1] for each in rounds), Counter[str]())) for who in rounds[0]
        },
    }


def measure(args: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Every figure."""
    expert, generalist = args.slices[0], args.slices[-1]
    capacity = {
        "max_num_seqs": args.slots,
        "max_model_len": CONTEXT,
        "threads": args.threads,
        "max_queued_requests": 256,
    }
    started = serving(args.slices, type=args.type, default=capacity)
    with started as service, theirs(file, args) as (other, other_pid):
        for url, model in ((service.url, expert), (other, expert), (service.url, generalist)):
            throughput(url, model, max(args.streams), 0, 8)  # warm up
        rounds = [one_round(number, service.url, other, args) for number in range(1, args.rounds + 1)]
        memory = {"ours": resident(service.pid), "theirs": resident(other_pid)}
    return {
        "memory": memory,
        "throughput": {
            str(streams): writing([each["speeds"][streams] for each in rounds]) for streams in args.streams
        },
        "first_text_ms": {
            who: percentiles([seconds for each in rounds for seconds in each["first"][who]])
            for who in rounds[0]["first"]
        },
        "routed_to_the_slice": fmean(len(each["first"]["ours"]) / args.first for each in rounds),
        "mixed_requests_per_second": answering([each["mixed"] for each in rounds]),
    }


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
