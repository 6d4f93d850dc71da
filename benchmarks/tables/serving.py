"""The tables of the service's and llama.cpp's figures in benchmarks/. Measures nothing."""

from collections.abc import Mapping
from typing import Any

Lines = tuple[list[str], list[list[str]]]


def serve_lines(figures: Mapping[str, Any]) -> Lines:
    """Tokens a second by streams, the time to the first text, memory; a column a server."""
    columns = ["", "mom", "llama-server", "ratio in a round", "the slice against the parent, both in mom"]
    lines = []
    for streams, found in figures["throughput"].items():
        speeds = [f"{found[who]['median']:.0f}" for who in ("ours", "theirs")]
        ratios = [_spread(found[which]) for which in ("against_llama_server", "against_parent")]
        lines.append([f"tokens/s, streams: {streams}", *speeds, *ratios])
    first = figures["first_text_ms"]
    for cut in ("p50", "p95"):
        ours, theirs = first["ours"][cut], first["theirs"][cut]
        lines.append(
            [f"first text, {cut}", f"{ours:.0f} ms", f"{theirs:.0f} ms", f"{ours - theirs:+.0f} ms", ""]
        )
    load, settings = figures["mixed_requests_per_second"], figures["settings"]
    speed, ratio = f"{load['mixture']['median']:.1f}", _spread(load["against_parent"])
    what = f"requests/s, questions of {len(settings['slices'])} domains, streams: {settings['slots']}"
    lines.append([what, speed, "", "", ratio])
    memory = figures["memory"]
    lines.append(["memory", *(f"{memory[who] / 1e9:.2f} GB" for who in ("ours", "theirs")), "", ""])
    return columns, lines


def chaos_lines(figures: Mapping[str, Any]) -> Lines:
    """What was broken, and what callers noticed."""
    parts, lines = figures["parts"], []
    kills, overload, gone = parts["kills"], parts["overload"], parts["disconnects"]
    away = kills["recovery_seconds"]
    lines.append(
        [f"kill -9 of an expert, {kills['kills']} times", _answered(kills),
         f"back after {away['median']:.1f} s, at most {away['max']:.1f} s"]
    )  # fmt: skip
    said = ", ".join(f"{count:,} times {status}" for status, count in overload["statuses"].items())
    lines.append(
        [f"80 clients for {overload['seconds']:.0f} s", said, f"memory {overload['memory_growth']:+.1%}"]
    )
    left = gone["answers_left_running"]
    lines.append(
        [
            f"{gone['hung_up']:,} clients hang up",
            f"{left} answers go on",
            f"free after {gone['seconds_to_be_free']:.2f} s",
        ]
    )
    loris = parts["slow_loris"]
    took = f"{loris['route_ms_before']:.0f} ms before, {loris['route_ms_during']:.0f} ms meanwhile"
    lines.append(
        [f"{loris['connections']} connections that never finish asking", "a routing decision takes", took]
    )
    stayed = "the experts stay" if parts["bad_reload"]["experts_as_before"] else "the experts change"
    lines.append(["three reloads of a bad serve.yaml", _answered(parts["bad_reload"]), stayed])
    corrupted = parts["corrupted"]
    lines.append(
        ["a slice's file cut in half", f"{corrupted['answered_by']} answers", f"“{corrupted['because']}”"]
    )
    return ["what happens", "what callers get", "and"], lines


def load_lines(figures: Mapping[str, Any]) -> Lines:
    """A long load: what callers got, and what became of the memory."""
    settings = figures["settings"]
    what = f"{settings['minutes']:.0f} minutes, {settings['clients']} clients, questions of every domain"
    grown = f"memory {figures['memory_growth']:+.1%}"
    return ["what happens", "what callers get", "and"], [[what, _answered(figures), grown]]


def fuzz_lines(figures: Mapping[str, Any]) -> Lines:
    """Cases by operation and by what they were answered with."""
    lines = []
    for label, statuses in figures["asked"].items():
        kinds = {kind: sum(n for s, n in statuses.items() if s.startswith(kind)) for kind in "245"}
        lines.append([label, *(f"{count:,}" for count in kinds.values())])
    totals = [sum(int(line[at].replace(",", "")) for line in lines) for at in (1, 2, 3)]
    lines.append(["all", *(f"{count:,}" for count in totals)])
    return ["operation", "answered", "refused (4xx)", "failed (5xx)"], lines


def perplexity_lines(figures: Mapping[str, Any]) -> Lines:
    """Ours beside llama-perplexity's, by type."""
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
