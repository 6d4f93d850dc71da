"""Tables of the serving benchmarks and of the comparison with llama.cpp's tools. Measures nothing."""

from collections.abc import Mapping
from typing import Any

Lines = tuple[list[str], list[list[str]]]  # columns, rows
SERVERS = ("mom", "llama_server")


def serve_lines(figures: Mapping[str, Any]) -> Lines:
    """Tokens per second by streams, time to first token, memory; a column a server."""
    columns = ["", "mom", "llama-server", "ratio within a round", "slice / parent, both in mom"]
    lines = []
    for streams, found in figures["decode_tokens_per_second"].items():
        speeds = [f"{found[server]['median']:.0f}" for server in SERVERS]
        ratios = [_spread(found[which]) for which in ("ratio_to_llama_server", "ratio_to_parent")]
        lines.append([f"tokens/s, streams: {streams}", *speeds, *ratios])
    first = figures["time_to_first_token_ms"]
    for cut in ("p50", "p95"):
        ours, theirs = (first[server][cut] for server in SERVERS)
        lines.append(
            [
                f"time to first token, {cut}",
                f"{ours:.0f} ms",
                f"{theirs:.0f} ms",
                f"{ours - theirs:+.0f} ms",
                "",
            ]
        )
    load, settings = figures["mixed_requests_per_second"], figures["settings"]
    speed, ratio = f"{load['mixture']['median']:.1f}", _spread(load["ratio_to_parent"])
    what = f"requests/s, queries of {len(settings['slices'])} domains, streams: {settings['slots']}"
    lines.append([what, speed, "", "", ratio])
    memory = figures["memory_bytes"]
    lines.append(["memory", *(f"{memory[server] / 1e9:.2f} GB" for server in SERVERS), "", ""])
    return columns, lines


def chaos_lines(figures: Mapping[str, Any]) -> Lines:
    """Injected faults, and the responses of the clients."""
    parts, lines = figures["parts"], []
    kills, overload, disconnects = parts["kills"], parts["overload"], parts["disconnects"]
    recovery = kills["recovery_seconds"]
    lines.append(
        [f"kill -9 of an expert, {kills['kills']} times", _answered(kills),
         f"recovery in {recovery['median']:.1f} s (median), {recovery['max']:.1f} s (maximum)"]
    )  # fmt: skip
    statuses = ", ".join(f"{count:,} times {status}" for status, count in overload["statuses"].items())
    lines.append(
        [f"80 clients for {overload['seconds']:.0f} s", statuses, f"memory {overload['memory_growth']:+.1%}"]
    )
    running = disconnects["running_afterwards"]
    lines.append(
        [
            f"{disconnects['disconnected']:,} clients disconnect",
            f"{running} requests keep running",
            f"idle after {disconnects['seconds_to_idle']:.2f} s",
        ]
    )
    loris = parts["slow_loris"]
    latency = f"{loris['route_ms_before']:.0f} ms before, {loris['route_ms_during']:.0f} ms during"
    lines.append(
        [
            f"{loris['connections']} connections that never finish a request",
            "latency of a routing decision",
            latency,
        ]
    )
    experts = (
        "the experts are unchanged" if parts["bad_reload"]["experts_unchanged"] else "the experts change"
    )
    lines.append(["three reloads of an invalid serve.yaml", _answered(parts["bad_reload"]), experts])
    corrupted = parts["corrupted"]
    lines.append(
        [
            "a slice's file truncated to half",
            f"{corrupted['answered_by']} answers",
            f"“{corrupted['decision']}”",
        ]
    )
    return ["fault", "responses", "outcome"], lines


def load_lines(figures: Mapping[str, Any]) -> Lines:
    """The soak test: responses and memory growth."""
    settings = figures["settings"]
    load = f"{settings['minutes']:.0f} minutes, {settings['clients']} clients, queries of every domain"
    growth = f"memory {figures['memory_growth']:+.1%}"
    return ["load", "responses", "outcome"], [[load, _answered(figures), growth]]


def fuzz_lines(figures: Mapping[str, Any]) -> Lines:
    """Cases by operation and class of status."""
    lines = []
    for label, statuses in figures["statuses"].items():
        kinds = {kind: sum(n for s, n in statuses.items() if s.startswith(kind)) for kind in "245"}
        lines.append([label, *(f"{count:,}" for count in kinds.values())])
    totals = [sum(int(line[at].replace(",", "")) for line in lines) for at in (1, 2, 3)]
    lines.append(["all", *(f"{count:,}" for count in totals)])
    return ["operation", "2xx", "4xx", "5xx"], lines


def perplexity_lines(figures: Mapping[str, Any]) -> Lines:
    """Perplexity and KL by mom and by llama-perplexity, by type."""
    lines = []
    for row in figures["rows"]:
        ours, theirs, ratio = row["ours"], row["llama_perplexity"], row["ratio"]
        lines.append(
            [row["type"], f"{ours['ppl']:.4f}", f"{theirs['ppl']:.4f}", f"{ours['kl']:.6f}",
             f"{theirs['kl']:.6f}", f"{ratio['kl']:.4f}"]
        )  # fmt: skip
    return ["type", "perplexity", "llama-perplexity's", "KL", "llama-perplexity's", "ratio"], lines


def _answered(part: Mapping[str, Any]) -> str:
    return f"{part['statuses'].get('200', 0):,} of {part['requests']:,} requests answered"


def _spread(value: Mapping[str, float]) -> str:
    return f"{value['median']:.2f} ({value['min']:.2f}-{value['max']:.2f})"
