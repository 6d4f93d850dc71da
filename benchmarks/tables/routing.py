"""The tables of routing: quality, latency, break-even and vocabulary fit. Measures nothing."""

from collections.abc import Mapping
from typing import Any

SETS = {
    "stems": "questions held back",
    "bioasq_questions": "BioASQ",
    "medquad_questions": "MedQuAD",
    "routerarena": "RouterArena",
    "arena_hard": "Arena-Hard",
    "semantic_router_cases": "semantic-router's cases",
}

SHOWN = {
    "cascade": "mom",
    "cheap": "mom, `embedder: static`",
    "always asked": "mom, MiniLM always asked",
    "tuned: cascade": "mom, encoder tuned",
    "tuned: always asked": "mom, tuned one always asked",
}

Lines = tuple[list[str], list[list[str]]]


def _routers(figures: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = {title: figures["ours"][name] for name, title in SHOWN.items() if name in figures["ours"]}
    peer = figures.get("peer")
    return found | ({f"semantic-router {peer['version']}": peer} if peer else {})


def quality_lines(figures: Mapping[str, Any]) -> Lines:
    """One row a test set, one column a router: routed decisions where measured, then forced choice."""
    routers = _routers(figures)
    lines = _routed_lines(routers)
    for name, title in SETS.items():
        cells = [each["accuracy"][name] for each in routers.values()]
        shown = [f"{cell['value']:.1%} ± {cell['stderr']:.1%}" for cell in cells]
        lines.append([f"{title}, n = {cells[0]['n']:,}", *shown])
    for key, title in (
        ("auroc", "out-of-domain queries: AUROC"),
        ("recall_at_95", "out-of-domain recall at 95 % acceptance"),
    ):
        lines.append([title, *(f"{each['ood'][key]:.3f}" for each in routers.values())])
    lines.append(["calibration error", *(f"{each['ece']:.3f}" for each in routers.values())])
    for kind, title in (("typos", "typos"), ("case", "other case"), ("small_talk", "small talk around")):
        cells = [each.get("robustness", {}).get(kind) for each in routers.values()]
        lines.append([f"decisions unchanged by {title}", *("-" if c is None else f"{c:.1%}" for c in cells)])
    return ["", *routers], lines


def _routed_lines(routers: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Accuracy of the routed decisions on each set; "-" where only forced choice was measured."""
    measured = [each["routed"] for each in routers.values() if "routed" in each]
    lines = []
    for name, title in (SETS | {"ood": "out-of-domain queries"}).items() if measured else ():
        cells = [each["routed"][name] if "routed" in each else None for each in routers.values()]
        shown = [f"{cell['value']:.1%} ± {cell['stderr']:.1%}" if cell else "-" for cell in cells]
        lines.append([f"{title}, routed, n = {measured[0][name]['n']:,}", *shown])
    return lines


def latency_lines(figures: Mapping[str, Any]) -> Lines:
    """One row a length: latency in milliseconds at p50, p95 and p99."""
    routers = {name: each for name, each in _routers(figures).items() if "latency_ms" in each}
    lengths = next(iter(routers.values()))["latency_ms"]
    lines = [
        [f"{int(length):,}", *(_spread(each["latency_ms"][length]) for each in routers.values())]
        for length in lengths
    ]
    return ["tokens", *routers], lines


def break_even_lines(figures: Mapping[str, Any]) -> Lines:
    """Mean relative bits by accuracy, one column a way to decide, and those of noisy measurements."""
    ways, again = (list(figures["rows"][0][key]) for key in ("relative_bits", "remeasured"))
    lines = []
    for row in figures["rows"]:
        cells = [_relative(each) for each in row["relative_bits"].values()]
        remeasured = [f"{each['value']:+.2%} ± {each['stderr']:.2%}" for each in row["remeasured"].values()]
        lines.append([f"{row['accuracy']:.1%}", *cells, *remeasured])
    if real := figures.get("real"):
        cells = [_relative(each) for each in real["relative_bits"].values()]
        title = f"the shipped examples' router: {real['accuracy']:.1%}"
        lines.append([title, *cells, *["-"] * len(again)])
    return ["accuracy", *ways, *(f"{name}; measured anew" for name in again)], lines


def _relative(cell: Mapping[str, float]) -> str:
    return f"{cell['value']:+.2%} ± {cell['stderr_costs']:.2%} ({cell['to_experts']:.0%})"


def vocabulary_lines(figures: Mapping[str, Any]) -> Lines:
    """The ratio of token counts by set of texts, and the share over each limit."""
    limits = list(next(iter(figures["sets"].values()))["over"])
    lines = [
        [
            name,
            str(found["n"]),
            *(f"{found['ratio'][key]:.2f}" for key in ("p5", "median", "p95")),
            *(f"{found['over'][limit]:.1%}" for limit in limits),
        ]
        for name, found in figures["sets"].items()
    ]
    return ["texts", "n", "p5", "median", "p95", *(f"over {limit}" for limit in limits)], lines


def _spread(times: Mapping[str, float]) -> str:
    return " / ".join(f"{times[key]:.1f}" for key in ("p50", "p95", "p99"))
