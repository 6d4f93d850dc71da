"""The rows of docs/RESULTS.md: which slices, healed how long. Measures nothing.

A row's healing is said in steps of 1,024 tokens, so that it is the same run on every machine; 1,050 of them
took an hour on two quiet cores with the SWA-only slice of Gemma 3 270M.
"""

from collections.abc import Iterator
from dataclasses import dataclass

DOMAINS = ("biochem", "law", "computing")
ROWS = 32_768
HOUR, TEN_MINUTES = 1_050, 150
CHOICE = 14  # layers of 18 that stay where the ways to choose them are compared
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Row:
    """A slice of the parent by `--layers` and `--vocab`, raw and healed for `steps` steps (0: raw only).

    `by` is the domain whose text chooses layers and rows; it is healed and measured on `domain`.
    """

    name: str
    table: str
    domain: str
    layers: str
    vocab: str = "all"
    steps: int = 0
    by: str | None = None
    seed: int = 0


def rows(layers: int) -> list[Row]:
    """Every row for a parent of that many layers."""
    return [*_swa(), *_words(), *_depth(layers), *_choice(layers)]


def _swa() -> Iterator[Row]:
    for domain in DOMAINS:
        yield Row(f"swa-{domain}", "swa", domain, "swa", str(ROWS), HOUR)


def _words() -> Iterator[Row]:
    for domain in DOMAINS:
        yield Row(f"words-{domain}", "words", domain, "all", str(ROWS), TEN_MINUTES)


def _depth(layers: int) -> Iterator[Row]:
    for dropped in (1, 2, 3, 4, 6, 8):
        kept = f"auto:{layers - dropped}"
        yield Row(f"depth-{dropped}", "depth", "law", kept, str(ROWS), TEN_MINUTES)


def _choice(layers: int) -> Iterator[Row]:
    """As many layers, chosen by the domain's text, by general text, and by chance."""
    kept = CHOICE if layers == 18 else layers * CHOICE // 18
    for domain in ("law", "computing"):
        yield Row(f"choice-{domain}-own", "choice", domain, f"auto:{kept}", steps=TEN_MINUTES)
        yield Row(
            f"choice-{domain}-general", "choice", domain, f"auto:{kept}", steps=TEN_MINUTES, by="general"
        )
        for seed in SEEDS:
            name = f"choice-{domain}-chance-{seed}"
            yield Row(name, "choice", domain, f"chance:{kept}", steps=TEN_MINUTES, seed=seed)
