"""What the experiments try: the recipes by experiment, and the pairs whose difference is the question.

Pure: nothing is read, quantized or measured here. Every recipe says what becomes of the vocabulary tables,
so that a change of our own default changes no figure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from slices.evaluate import ratio
from slices.predictor import SMALLEST, Advice, Ratio, agreed, passes
from slices.quant_recipe import LLAMA_CPP, Recipe, make_recipe

LADDER = ("Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_XS", "Q4_K_M", "Q6_K", "Q8_0")
TABLED = ("Q2_K", "Q3_K_M", "IQ4_XS", "Q4_K_M")
TABLE_TYPES = ("Q2_K", "Q3_K", "IQ4_NL", "Q4_K", "Q6_K", "Q8_0")
HIGH = {"attn_v": "Q6_K", "attn_output": "Q6_K", "ffn_down": "Q6_K"}  # parts kept high in a Q2_K
PER_LAYER, EMBEDDING = r"^per_layer_token_embd\.weight$", r"^token_embd\.weight$"


@dataclass(frozen=True)
class Trial:
    """One file to make and measure. `padded`: that part alone is simulated, the rest stays bf16."""

    experiment: str
    name: str
    type: str
    tables: str = LLAMA_CPP
    overrides: tuple[tuple[str, str], ...] = ()
    pure: bool = False
    weighted: bool = False
    padded: Literal["", "blocks", "tables"] = ""

    @property
    def recipe(self) -> Recipe:
        """For `slices.quantizer`; a padded trial has none."""
        return make_recipe(self.type, None if self.pure else self.tables, dict(self.overrides), self.pure)


def ladder() -> list[Trial]:
    """The mixes as llama.cpp has them."""
    return [Trial("ladder", kind, kind) for kind in LADDER]


def tables() -> list[Trial]:
    """The mixes by the type of their tables, llama.cpp's own choice first."""
    own = [Trial("ladder", kind, kind) for kind in TABLED]
    return own + [
        Trial("tables", f"{kind}, tables {table}", kind, table)
        for kind in TABLED
        for table in TABLE_TYPES
        if kind == "Q2_K" or table not in ("Q2_K", "Q3_K")
    ]


def imatrix() -> list[Trial]:
    """With an importance matrix what the ladder has without, and IQ2_M, which needs one."""
    kinds = ("Q2_K", "Q3_K_M", "IQ2_M", "IQ4_XS")
    return [Trial("imatrix", f"{kind}, imatrix", kind, weighted=True) for kind in kinds]


def variations() -> list[Trial]:
    """Q2_K with a part kept high, or without exceptions. The output of these models is their embedding:
    one table, one type, so keeping the output high is "tables Q8_0"."""
    kept = [
        Trial("variations", f"Q2_K, {part} {kind}", "Q2_K", overrides=((rf"{part}\.weight$", kind),))
        for part, kind in HIGH.items()
    ]
    return [*kept, Trial("variations", "Q2_K, pure", "Q2_K", pure=True)]


def per_layer() -> list[Trial]:
    """Gemma 4's two tables apart, in a mix that costs little by itself."""
    return [
        Trial("per-layer", f"Q8_0, {name} {kind}", "Q8_0", overrides=((pattern, kind),))
        for name, pattern in (("per-layer table", PER_LAYER), ("embedding", EMBEDDING))
        for kind in ("Q2_K", "Q3_K", "Q4_K", "Q6_K")
    ]


def padded() -> list[Trial]:
    """One part in one type, everything else bf16: the same question to models of every width."""
    return [
        *(Trial("padded", f"only blocks {kind}", kind, padded="blocks") for kind in ("Q2_K", "Q3_K", "Q4_K")),
        Trial("padded", "only blocks Q2_K, imatrix", "Q2_K", weighted=True, padded="blocks"),
        *(
            Trial("padded", f"only tables {kind}", kind, padded="tables")
            for kind in ("Q2_K", "Q3_K", "Q4_K", "Q6_K", "Q8_0")
        ),
    ]


def swa() -> list[Trial]:
    """What a model of sliding layers alone is asked, beside its distance from its parent."""
    return [Trial("swa", kind, kind) for kind in ("Q2_K", "Q4_K_M", "Q8_0")]


EXPERIMENTS: Mapping[str, Callable[[], list[Trial]]] = {
    "tables": tables, "ladder": ladder, "imatrix": imatrix, "variations": variations,
    "per-layer": per_layer, "padded": padded, "swa": swa,
}  # fmt: skip
# (experiment, its row, the row it is held against): the difference is first less second.
PAIRS = (
    *(("imatrix", f"{kind}, imatrix", kind) for kind in ("Q2_K", "Q3_K_M", "IQ4_XS", "only blocks Q2_K")),
    *(("Q2_K against Q3_K", "Q2_K", kind) for kind in ("Q3_K_S", "Q3_K_M")),
    ("Q2_K against Q3_K", "only blocks Q2_K", "only blocks Q3_K"),
    *(("tables", f"{kind}, tables {table}", kind) for kind in TABLED for table in TABLE_TYPES),
    *(("variations", f"Q2_K, {part} {kind}", "Q2_K") for part, kind in HIGH.items()),
    ("variations", "Q2_K, pure", "Q2_K"),
)


def paired(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Differences of KL in nats a token, document by document, where both rows read the same text."""
    by_name = {(row["model"], row["recipe"]["name"]): row for row in rows}
    found = []
    for model in dict.fromkeys(row["model"] for row in rows):
        for experiment, first, second in PAIRS:
            one, other = by_name.get((model, first)), by_name.get((model, second))
            if one and other and one["data"] == other["data"]:
                names = {"model": model, "experiment": experiment, "row": first, "against": second}
                sizes = {"bytes": one["bytes"] - other["bytes"]}
                found.append(names | sizes | {"difference": _difference(one, other)})
    return found


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float]:
    first, second = (np.array(row["documents"]["kl"]) for row in (one, other))
    estimate = ratio(first - second, np.array(one["documents"]["tokens"], dtype=np.float64))
    return {"value": estimate.value, "stderr": estimate.stderr}


def judged(advice: Advice, kind: str, measured: Ratio) -> tuple[str, bool | None]:
    """What the predictor says that bears on a type, and whether it was right; None: too close to tell.

    Its verdict is about Q2_K. The types that it advises instead are to pass; of others it says nothing, "".
    """
    if kind == SMALLEST:
        return advice.verdict, agreed(advice, {SMALLEST: measured})
    named = "Q3_K" if kind.startswith("Q3_K") else kind
    if named in (advice.type, advice.fallback):
        return "passes", passes({named: measured}, named)
    return "", None
