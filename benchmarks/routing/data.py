"""Labelled queries of the routing benchmark: the training split and the test sets.

The split is by a hash of the normalized text, so a question that several sets share falls on one side. No
text of the sets in `UNSEEN_SETS` and `PEER_CASES` is trained on, wherever else it occurs.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from router.routing.model import GENERAL
from router.training.dataset import OOD, join_choices, normalize

EXPERTS = (
    "biochem", "computing", "economics", "history", "law",
    "math", "medicine", "philosophy", "physics", "social",
)  # fmt: skip
UNSEEN_SETS = ("bioasq_questions", "medquad_questions", "routerarena", "arena_hard")
PEER_CASES = "semantic_router_cases"
OOD_SETS = ("clinc150", "banking77")
INTERCHANGEABLE = ("biochem", "medicine")  # both correct where a set's questions lie between the two
HELDOUT_PERCENT = 20  # % of the texts


@dataclass(frozen=True)
class Query:
    """A labelled text, its data set, whether it is held out, and its answer choices as one text."""

    text: str
    domain: str
    source: str
    heldout: bool
    choices: str = ""


def read(data: Path) -> list[Query]:
    """Every labelled query of experts' domains, `general` and `ood`, deduplicated within each set."""
    queries: dict[tuple[str, str], Query] = {}
    for file in sorted([*data.glob("questions/*.jsonl"), *data.glob("routing/*.jsonl")]):
        for line in file.read_text(encoding="utf-8").split("\n"):
            record = json.loads(line) if line.strip() else {}
            text, domain = record.get("query") or record.get("question"), record.get("domain")
            if text and domain in (*EXPERTS, GENERAL, OOD):
                normalized = normalize(text)
                digest = int(hashlib.sha1(f"route:{normalized}".encode()).hexdigest()[:12], 16)
                query = Query(
                    text=text,
                    domain=domain,
                    source=file.stem,
                    heldout=digest % 100 < HELDOUT_PERCENT,
                    choices=join_choices(record.get("choices")),
                )
                queries.setdefault((normalized, file.stem), query)
    return list(queries.values())


def training_queries(queries: Sequence[Query]) -> list[Query]:
    """The queries that a router may be fitted on."""
    excluded = {normalize(query.text) for query in queries if query.source in (*UNSEEN_SETS, PEER_CASES)}
    return [
        query
        for query in queries
        if not query.heldout and query.domain != OOD and normalize(query.text) not in excluded
    ]


def heldout_queries(queries: Sequence[Query]) -> list[Query]:
    """The held-out queries of the training sets, of experts' domains."""
    other_sets = (*UNSEEN_SETS, PEER_CASES, *OOD_SETS)
    return [
        query
        for query in queries
        if query.heldout and query.source not in other_sets and query.domain in EXPERTS
    ]


def queries_of_set(queries: Sequence[Query], name: str) -> list[Query]:
    """All queries of a set that are of experts' domains."""
    return [query for query in queries if query.source == name and query.domain in EXPERTS]


def ood_queries(queries: Sequence[Query], count: int) -> list[Query]:
    """`count` out-of-domain queries, sampled by their hashes."""
    candidates = [query for query in queries if query.source in OOD_SETS]
    return sorted(candidates, key=lambda query: hashlib.sha1(query.text.encode()).digest())[:count]
