"""What the experiments try: the recipes, by experiment.

Nothing is read, quantized or measured here, and what came out is in `experiment_findings`. Every recipe says
what becomes of the vocabulary tables, so that a change of our own default changes no figure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from slices.quant.recipe import Recipe, make_recipe
from slices.quant.types import LLAMA_CPP

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
        """For `slices.quant.quantizer`; a padded trial has none."""
        return make_recipe(self.type, None if self.pure else self.tables, dict(self.overrides), self.pure)


def ladder() -> list[Trial]:
    """The mixes as llama.cpp has them."""
    return [Trial("ladder", kind, kind) for kind in LADDER]


def tables() -> list[Trial]:
    """The mixes by the type of their tables, llama.cpp's own choice first."""
    own = [Trial("ladder", kind, kind) for kind in TABLED]
    return own + [
        Trial(experiment="tables", name=f"{kind}, tables {table}", type=kind, tables=table)
        for kind in TABLED
        for table in TABLE_TYPES
        if kind == "Q2_K" or table not in ("Q2_K", "Q3_K")
    ]


def imatrix() -> list[Trial]:
    """With an importance matrix what the ladder has without, and IQ2_M, which needs one."""
    kinds = ("Q2_K", "Q3_K_M", "IQ2_M", "IQ4_XS")
    return [Trial(experiment="imatrix", name=f"{kind}, imatrix", type=kind, weighted=True) for kind in kinds]


def variations() -> list[Trial]:
    """Q2_K with a part kept high, or without exceptions. The output of these models is their embedding:
    one table, one type, so keeping the output high is "tables Q8_0"."""
    kept = [
        Trial(
            experiment="variations",
            name=f"Q2_K, {part} {kind}",
            type="Q2_K",
            overrides=((rf"{part}\.weight$", kind),),
        )
        for part, kind in HIGH.items()
    ]
    return [*kept, Trial(experiment="variations", name="Q2_K, pure", type="Q2_K", pure=True)]


def per_layer() -> list[Trial]:
    """Gemma 4's two tables apart, in a mix that costs little by itself."""
    return [
        Trial(experiment="per-layer", name=f"Q8_0, {name} {kind}", type="Q8_0", overrides=((pattern, kind),))
        for name, pattern in (("per-layer table", PER_LAYER), ("embedding", EMBEDDING))
        for kind in ("Q2_K", "Q3_K", "Q4_K", "Q6_K")
    ]


def padded() -> list[Trial]:
    """One part in one type, everything else bf16: the same question to models of every width."""
    return [
        *(
            Trial(experiment="padded", name=f"only blocks {kind}", type=kind, padded="blocks")
            for kind in ("Q2_K", "Q3_K", "Q4_K")
        ),
        Trial(
            experiment="padded", name="only blocks Q2_K, imatrix", type="Q2_K", weighted=True, padded="blocks"
        ),
        *(
            Trial(experiment="padded", name=f"only tables {kind}", type=kind, padded="tables")
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
