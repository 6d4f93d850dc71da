"""What the rows of the experiments say: paired differences, the predictor's word, cases for its record.

Pure: rows in, findings out. A row is what `benchmarks.ffn_ratio.measure` keeps of one file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.ffn_ratio.trials import HIGH, LADDER, TABLE_TYPES, TABLED
from slices.estimate import ratio
from slices.measure.predictor import SMALLEST, Advice, Ratio, advise_layers, agreed, passes

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


def verdict(about: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The predictor's word on a row. It speaks of quantized models, not of cuts or of tables alone."""
    recipe = row["recipe"]
    if recipe["type"] == "BF16" or recipe["padded"] == "tables":
        return {"verdict": "", "right": None}
    advice = advise_layers(about["ffn_ratios"], about["swa_share"])
    word, right = judged(advice, recipe["type"], Ratio(**row["perplexity_ratio"]))
    return {"verdict": word, "right": right}


def cases(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For `slices.measure.track_record`: models with a whole ladder of the mixes as llama.cpp has them."""
    found = []
    for name, model in figures["models"].items():
        rows = [row for row in figures["rows"] if row["model"] == name and row["experiment"] == "ladder"]
        rows = [row for row in rows if row["data"] == model["text"]["sha256"]]
        measured = {row["recipe"]["type"]: row["perplexity_ratio"] for row in rows}
        if measured.keys() >= set(LADDER):
            ratios = {"ffn_ratios": model["ffn_ratios"], "swa_share": model["swa_share"]}
            found.append({"model": name, **ratios, "perplexity_ratio": measured, "origin": model["origin"]})
    return found
