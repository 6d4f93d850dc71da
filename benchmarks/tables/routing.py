"""The tables of results/routing.json: what routers are worth, and how long they take. Measures nothing."""

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
    """A line a test, a column a router."""
    routers = _routers(figures)
    lines = []
    for name, title in SETS.items():
        cells = [each["accuracy"][name] for each in routers.values()]
        shown = [f"{cell['value']:.1%} ± {cell['stderr']:.1%}" for cell in cells]
        lines.append([f"{title}, n = {cells[0]['n']:,}", *shown])
    for key, title in (
        ("auroc", "strangers: AUROC"),
        ("recall_at_95", "strangers kept out at 95 % acceptance"),
    ):
        lines.append([title, *(f"{each['strangers'][key]:.3f}" for each in routers.values())])
    lines.append(["calibration error", *(f"{each['ece']:.3f}" for each in routers.values())])
    for kind, title in (("typo", "typing slips"), ("case", "other case"), ("wording", "small talk around")):
        cells = [each.get("survived", {}).get(kind) for each in routers.values()]
        lines.append([f"decisions that survive {title}", *("-" if c is None else f"{c:.1%}" for c in cells)])
    return ["", *routers], lines


def latency_lines(figures: Mapping[str, Any]) -> Lines:
    """A line a length, milliseconds at the middle, 95 % and 99 %."""
    routers = {name: each for name, each in _routers(figures).items() if "latency_ms" in each}
    lengths = next(iter(routers.values()))["latency_ms"]
    lines = [
        [f"{int(length):,}", *(_spread(each["latency_ms"][length]) for each in routers.values())]
        for length in lengths
    ]
    return ["tokens", *routers], lines


def _spread(times: Mapping[str, float]) -> str:
    return " / ".join(f"{times[key]:.1f}" for key in ("p50", "p95", "p99"))
