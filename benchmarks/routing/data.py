"""Labelled queries for bench_route.py: what a router may learn from, and what it is asked.

The text decides by a hash on which side it falls, so a question that several sets share lies on one side.
Nothing of the sets in `WORDINGS` and `CASES` is learned from, nor any text that also stands in them.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from router.routing.model import GENERAL
from router.training.dataset import OOD, joined

EXPERTS = (
    "biochem", "computing", "economics", "history", "law",
    "math", "medicine", "philosophy", "physics", "social",
)  # fmt: skip
WORDINGS = ("bioasq_questions", "medquad_questions", "routerarena", "arena_hard")
CASES = "semantic_router_cases"
STRANGERS = ("clinc150", "banking77")
EITHER = ("biochem", "medicine")  # both right where a set's questions lie between the two
HELD = 20  # % of the texts


@dataclass(frozen=True)
class Query:
    """A labelled text, the set that it comes from, whether it is held back, and its choices in one text."""

    text: str
    domain: str
    source: str
    held: bool
    choices: str = ""


def key(text: str) -> str:
    """The text without case, spaces and punctuation."""
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).lower()).strip()


def read(data: Path) -> list[Query]:
    """Every labelled query of experts' domains, `general` and `ood`, each once a set."""
    found: dict[tuple[str, str], Query] = {}
    for file in sorted([*data.glob("questions/*.jsonl"), *data.glob("routing/*.jsonl")]):
        for line in file.read_text(encoding="utf-8").split("\n"):
            said = json.loads(line) if line.strip() else {}
            text, domain = said.get("query") or said.get("question"), said.get("domain")
            if text and domain in (*EXPERTS, GENERAL, OOD):
                short = key(text)
                digest = int(hashlib.sha1(f"route:{short}".encode()).hexdigest()[:12], 16)
                query = Query(text, domain, file.stem, digest % 100 < HELD, joined(said.get("choices")))
                found.setdefault((short, file.stem), query)
    return list(found.values())


def to_learn(queries: Sequence[Query]) -> list[Query]:
    """What a router may be fitted on."""
    unseen = {key(query.text) for query in queries if query.source in (*WORDINGS, CASES)}
    return [
        query for query in queries if not query.held and query.domain != OOD and key(query.text) not in unseen
    ]


def stems(queries: Sequence[Query]) -> list[Query]:
    """What was held back of the sets that were learned from, of experts' domains."""
    apart = (*WORDINGS, CASES, *STRANGERS)
    return [
        query for query in queries if query.held and query.source not in apart and query.domain in EXPERTS
    ]


def of_set(queries: Sequence[Query], name: str) -> list[Query]:
    """All of a set that is of experts' domains."""
    return [query for query in queries if query.source == name and query.domain in EXPERTS]


def strangers(queries: Sequence[Query], count: int) -> list[Query]:
    """`count` of the sets that no expert should answer, by their hashes."""
    found = [query for query in queries if query.source in STRANGERS]
    return sorted(found, key=lambda query: hashlib.sha1(query.text.encode()).digest())[:count]
