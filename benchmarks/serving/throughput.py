"""Time the service against llama.cpp's own `llama-server`: the same GGUF, threads and slots, on one machine.

    python -m benchmarks.serving.throughput law-words general-all --llama-server PATH

The first slice is also given to llama-server. Both take turns in every round, so that a busy spell of the
machine meets both; ratios are taken within a round and their spread is the machine's noise. Throughput is in
decoded tokens per second over all streams; mom's time to first token includes routing (`auto`), of queries of
the slice's domain; those routed elsewhere are not timed. The last of the slices is the generalist, and stands
for the parent where it keeps all layers and the whole vocabulary. The mixed load is queries of the served
domains, sent once to `auto` and once to the parent alone.
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
from benchmarks.serving.load_client import TimedCompletion, client, complete, complete_all, prompts, questions
from benchmarks.serving.process import free_port, resident_bytes, running, serving
from router.serving.build import domain_queries
from slices import home, manifest

OUT = RESULTS / "throughput.json"
STREAMS = (1, 4, 16)
CONTEXT = 1024


@contextmanager
def llama_server(file: Path, args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """`llama-server` with this file; its URL and pid."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        str(args.llama_server), "-m", str(file), "--host", "127.0.0.1", "--port", str(port),
        "-t", str(args.threads), "-tb", str(args.threads), "-np", str(args.slots),
        "-c", str(CONTEXT * args.slots), "--no-webui",
    ]  # fmt: skip
    with running(command, url, "/health") as pid:
        yield url, pid


def decode_speed(url: str, model: str, streams: int, seed: int, tokens: int) -> float:
    """Decoded tokens per second over `streams` concurrent streams."""
    count = max(2 * streams, 4)
    bodies = [
        {
            "model": model,
            "prompt": text,
            "max_tokens": tokens,
            "temperature": 1.0,
            "seed": seed,
            "top_k": 64,
        }
        for text in prompts(count)
    ]
    completions, seconds = asyncio.run(complete_all(url, bodies, streams))
    check(completions)
    return sum(each.completion_tokens for each in completions) / seconds


def mixed_load(url: str, model: str, seed: int, args: argparse.Namespace) -> tuple[float, Counter[str]]:
    """Requests per second with queries of every served domain, and the responses by expert."""
    queries = domain_queries()
    domains = [manifest.read(home.home() / "slices" / name).domain for name in args.slices]
    texts = [query for domain in domains for query in Random(seed).sample(queries[domain], args.mixed)]
    Random(seed).shuffle(texts)
    bodies = [{"model": model, "prompt": text, "max_tokens": args.tokens, "seed": seed} for text in texts]
    completions, seconds = asyncio.run(complete_all(url, bodies, args.slots))
    check(completions)
    return len(completions) / seconds, Counter(each.expert for each in completions)


def first_token_times(
    targets: Mapping[str, tuple[str, str]], expert: str, count: int
) -> dict[str, list[float]]:
    """Seconds to the first text of `count` completions of each target, in turns; those by `expert` alone.

    Args:
        targets: a server's URL and the model there, by name.
    """
    queries = domain_queries()[manifest.read(home.home() / "slices" / expert).domain]

    async def in_turns() -> dict[str, list[TimedCompletion]]:
        completions: dict[str, list[TimedCompletion]] = {name: [] for name in targets}
        async with AsyncExitStack() as stack:
            clients = {url: await stack.enter_async_context(client(url)) for url, _ in targets.values()}
            for _ in range(count):
                texts = questions(queries, len(targets))
                for (name, (url, model)), text in zip(targets.items(), texts, strict=True):
                    body = {"model": model, "prompt": text, "max_tokens": 2, "seed": 1}
                    completions[name].append(await complete(clients[url], body))
        return completions

    completions = asyncio.run(in_turns())
    check([each for timed in completions.values() for each in timed])
    return {
        name: [each.first_text_seconds for each in timed if each.expert in ("", expert)]
        for name, timed in completions.items()
    }


def check(completions: Sequence[TimedCompletion]) -> None:
    """End the benchmark where a completion failed: its figures would mean nothing."""
    failed = [each.status for each in completions if each.status != 200 or not each.completion_tokens]
    if failed:
        raise SystemExit(
            f"{len(failed)} of {len(completions)} completions failed or were empty: {failed[:3]}"
        )


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p95 in milliseconds."""
    cuts = quantiles([1000 * value for value in seconds], n=20, method="inclusive")
    return {"p50": cuts[9], "p95": cuts[18]}


def one_round(number: int, mom: str, other: str, args: argparse.Namespace) -> dict[str, Any]:
    """All measurements once, with the round's number as the seed.

    Args:
        mom: URL of the service; `other` is llama-server's.
    """
    expert, generalist = args.slices[0], args.slices[-1]
    decoders = {"mom": (mom, expert), "llama_server": (other, expert), "parent": (mom, generalist)}
    starters = {"mom": (mom, "auto"), "mom_named": (mom, expert), "llama_server": (other, expert)}
    results = {
        "speeds": {
            streams: {
                name: decode_speed(*target, streams, number, args.tokens) for name, target in decoders.items()
            }
            for streams in args.streams
        },
        "first": first_token_times(starters, expert, args.first),
        "mixed": {
            name: mixed_load(mom, model, number, args)
            for name, model in (("mixture", "auto"), ("parent", generalist))
        },
    }
    print(f"round {number}: {results['speeds']} tokens/s, {results['mixed']} requests/s", file=sys.stderr)
    return results


def ratios(rounds: Sequence[Mapping[str, float]], numerator: str, denominator: str) -> dict[str, float]:
    """Ratios of two figures of the same round."""
    return spread([each[numerator] / each[denominator] for each in rounds])


def decode_summary(rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Tokens per second over all rounds."""
    return {
        **{name: spread([each[name] for each in rounds]) for name in rounds[0]},
        "ratio_to_llama_server": ratios(rounds, "mom", "llama_server"),
        "ratio_to_parent": ratios(rounds, "mom", "parent"),
    }


def mixed_summary(rounds: Sequence[Mapping[str, tuple[float, Counter[str]]]]) -> dict[str, Any]:
    """Requests per second under the mixed load over all rounds, and responses by expert."""
    speeds = [{name: speed for name, (speed, _) in each.items()} for each in rounds]
    return {
        **{name: spread([each[name] for each in speeds]) for name in speeds[0]},
        "ratio_to_parent": ratios(speeds, "mixture", "parent"),
        "requests_by_expert": {
            name: dict(sum((each[name][1] for each in rounds), Counter[str]())) for name in rounds[0]
        },
    }


def measure(args: argparse.Namespace, file: Path) -> dict[str, Any]:
    """All figures."""
    expert, generalist = args.slices[0], args.slices[-1]
    capacity = {
        "max_num_seqs": args.slots,
        "max_model_len": CONTEXT,
        "threads": args.threads,
        "max_queued_requests": 256,
    }
    started = serving(args.slices, type=args.type, default=capacity)
    with started as service, llama_server(file, args) as (other, other_pid):
        for url, model in ((service.url, expert), (other, expert), (service.url, generalist)):
            decode_speed(url, model, max(args.streams), 0, 8)  # warm up
        rounds = [one_round(number, service.url, other, args) for number in range(1, args.rounds + 1)]
        memory = {"mom": resident_bytes(service.pid), "llama_server": resident_bytes(other_pid)}
    return {
        "memory_bytes": memory,
        "decode_tokens_per_second": {
            str(streams): decode_summary([each["speeds"][streams] for each in rounds])
            for streams in args.streams
        },
        "time_to_first_token_ms": {
            name: percentiles_ms([seconds for each in rounds for seconds in each["first"][name]])
            for name in rounds[0]["first"]
        },
        "routed_to_slice": fmean(len(each["first"]["mom"]) / args.first for each in rounds),
        "mixed_requests_per_second": mixed_summary([each["mixed"] for each in rounds]),
    }


def main() -> None:
    """Measure, and write the results."""
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
    parser.add_argument("--first", type=int, default=10, help="completions a round for time to first token")
    parser.add_argument("--mixed", type=int, default=8, help="queries of each domain in a round")
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    args = parser.parse_args()
    folder = home.home() / "slices" / args.slices[0]
    name = next(each.file for each in manifest.read(folder).quantized if each.type == args.type)
    results = {
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
    args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
