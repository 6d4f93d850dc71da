"""The rows of docs/results.md: which slices, healed how long. Measures nothing.

A row's healing is given in steps, so that it is the same run on every machine. An `HOUR` of two cores gets
through as many steps of four rows of 512 tokens with the SWA-only slice of Gemma 3 270M; what a GPU takes
some minutes for, `LONG`, would take such a machine most of a day.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from slices.quant.types import LLAMA_CPP

DOMAINS = ("biochem", "law", "computing")
ROWS = 32_768
HOUR, LONG, SHORT = 700, 2000, 140  # steps of healing
FEW, MANY = 4, 8  # rows that a step of an hour's and of the long healing reads
MOSTLY, HALF = 0.9, 0.5  # hard-label weights
LONG_LR = 1e-4  # peak learning rate of the long healing that docs/log.md has the curves of
DEPTHS, SHALLOW = (2, 4, 6, 8, 10, 12, 14, 16, 18), (1, 2, 4, 6)  # layers dropped
SEEDS = (0, 1, 2)
PLAIN = (("Q2_K", "Q2_K"), ("Q2_K", LLAMA_CPP), ("Q4_K_M", LLAMA_CPP), ("Q8_0", LLAMA_CPP))  # types, tables


@dataclass(frozen=True)
class Row:
    """A slice of the parent by `--layers` and `--vocab`, raw and healed for `steps` steps (0: raw only).

    `by` is the domain whose text chooses layers and rows; it is healed and measured on `domain`. `unshared`
    says how layers that shared K/V come to their own. `quant` makes it a plain quant of the whole parent, of
    that type and tables, in place of a slice. `hard_label_weight` and `lr` None are the defaults of
    `mom heal`; `batch` is how many rows of 512 tokens a step reads.
    """

    name: str
    table: str
    domain: str
    layers: str
    vocab: str = "all"
    steps: int = 0
    by: str | None = None
    seed: int = 0
    unshared: str | None = None
    quant: tuple[str, str] | None = None
    hard_label_weight: float | None = None
    label_only_fraction: float = 0.0
    batch: int = 1
    lr: float | None = None


def rows(layers: int, vocabulary: int, shared: int) -> list[Row]:
    """Every row for a parent of that many layers, of which `shared` share K/V."""
    words = str(ROWS) if vocabulary > ROWS else "all"
    found = [*_plain(), *_swa(words, shared), *_depth(layers, words)]
    return [*found, *(_choice(layers) if words == "all" else _words(words))]


def _plain() -> Iterator[Row]:
    for domain in DOMAINS:
        for type, embedding_type in PLAIN:
            small = "" if embedding_type == LLAMA_CPP else f"-{embedding_type}"
            yield Row(
                name=f"plain-{domain}-{type}{small}",
                table="plain",
                domain=domain,
                layers="all",
                quant=(type, embedding_type),
            )


def _swa(words: str, shared: int) -> Iterator[Row]:
    for domain in DOMAINS:
        yield Row(
            name=f"swa-{domain}",
            table="swa",
            domain=domain,
            layers="swa",
            vocab=words,
            steps=HOUR,
            hard_label_weight=MOSTLY,
            batch=FEW,
        )
        if words != "all":
            long = Row(
                name=f"swa-{domain}-long",
                table="long",
                domain=domain,
                layers="swa",
                vocab=words,
                steps=LONG,
                batch=MANY,
            )
            yield replace(long, hard_label_weight=HALF, lr=LONG_LR)
    for way in ("noise", "donor") if shared else ():
        yield Row(
            name=f"swa-law-unshared-{way}",
            table="unshared",
            domain="law",
            layers="swa",
            vocab=words,
            steps=SHORT,
            unshared=way,
        )


def _words(words: str) -> Iterator[Row]:
    for domain in DOMAINS:
        yield Row(
            name=f"words-{domain}", table="words", domain=domain, layers="all", vocab=words, steps=SHORT
        )


def _depth(layers: int, words: str) -> Iterator[Row]:
    for dropped in DEPTHS if layers > 2 * DEPTHS[-1] else SHALLOW:
        yield Row(
            name=f"depth-{dropped}",
            table="depth",
            domain="law",
            layers=f"auto:{layers - dropped}",
            vocab=words,
            steps=SHORT,
        )


def _choice(layers: int) -> Iterator[Row]:
    """As many layers, chosen by the domain's text, by general text, and by chance; every row is kept."""
    kept = f"{layers - layers * 4 // 18}"
    for domain in ("law", "computing"):
        name = f"choice-{domain}"
        yield Row(name=f"{name}-own", table="choice", domain=domain, layers=f"auto:{kept}", steps=SHORT)
        yield Row(
            name=f"{name}-general",
            table="choice",
            domain=domain,
            layers=f"auto:{kept}",
            steps=SHORT,
            by="general",
        )
        for seed in SEEDS:
            yield Row(
                name=f"{name}-chance-{seed}",
                table="choice",
                domain=domain,
                layers=f"chance:{kept}",
                steps=SHORT,
                seed=seed,
            )
