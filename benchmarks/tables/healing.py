"""The tables of docs/results.md, from the rows that `benchmarks.healing.run` measured. Measures nothing."""

import re
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from benchmarks.healing.rows import DOMAINS
from slices.measure.paired import corrected, paired_difference

Found = Mapping[str, Any]
FORMS = ("raw", "healed")
COLUMNS = [
    "row",
    "form",
    "layers",
    "Q4_K_M file",
    "KL on kept tokens",
    "lost mass",
    "bits per byte",
    "against the parent",
]
TASKS = ["arithmetic", "brackets", "repetition"]
COLUMNS += ["as Q4_K_M", "less a plain quant's", *TASKS]
PLAIN = ["domain", "type", "tables", "file", "bits per byte", "against the parent", *TASKS]


def rows_table(found: Sequence[Found], table: str) -> tuple[list[str], list[list[str]]]:
    """Every row of a table, raw and healed, with likelihoods and writing."""
    lines = []
    for each in sorted(found, key=_place):
        if each["row"]["table"] != table:
            continue
        for form in FORMS:
            if form in each:
                lines.append(_line(each, form, found))
        if "not_healed" in each:
            lines.append([each["row"]["name"], "healing did not help", *["-"] * (len(COLUMNS) - 2)])
    return COLUMNS, lines


def plain_table(found: Sequence[Found]) -> tuple[list[str], list[list[str]]]:
    """Plain quants of the whole parent by domain, the smallest first."""
    lines = []
    order = {domain: number for number, domain in enumerate(DOMAINS)}
    rows = [each for each in found if "plain" in each]
    for each in sorted(rows, key=lambda e: (order[e["row"]["domain"]], e["plain"]["bytes"])):
        file, (type, tables) = each["plain"], each["row"]["quant"]
        needed = f"{file['bits_per_byte']['value']:.3f} ± {file['bits_per_byte']['stderr']:.3f}"
        relative = _relative(file["bits_over_parent"], file["parent"]["value"])
        size = f"{file['bytes'] / 1e6:.1f} MB"
        lines.append([each["row"]["domain"], type, tables, size, needed, relative, *_tasks(file)])
    return PLAIN, lines


def matrix_table(found: Sequence[Found]) -> tuple[list[str], list[list[str]]]:
    """Healed slices by domain: bits per byte, and on the diagonal whether it beats the others there."""
    slices = {e["row"]["domain"]: e for e in found if e["row"]["table"] == "swa" and "healed" in e}
    lines = []
    for own, each in slices.items():
        cells = []
        for domain in DOMAINS:
            value = each["healed"]["domains"][domain]["bits_per_byte"]
            mark = f" ({_diagonal(domain, slices)})" if domain == own else ""
            cells.append(f"{value['value']:.3f} ± {value['stderr']:.3f}{mark}")
        lines.append([each["row"]["name"], *cells])
    return ["slice", *DOMAINS], lines


def budget_lines(figures: Found) -> tuple[list[str], list[list[str]]]:
    """What a search under a budget tried, the largest first, under the smallest file that cuts nothing."""
    on = {point["label"] for point in figures["frontier"]}
    whole = [each for each in figures["skipped"] if each["label"].startswith("nothing cut")]
    lines = [
        [each["label"], f"{each['bytes'] / 1e6:.1f} MB", "-", "-", "-", each["reason"]]
        for each in sorted(whole, key=lambda each: float(each["bytes"]))[:1]
    ]
    for each in figures["candidates"]:
        status = "on the frontier" if each["label"] in on else "dominated"
        status = "**chosen**" if each["label"] == figures["chosen"] else status
        values = (each[name] for name in ("bits_per_byte", "bits_over_parent", "kl"))
        errors = [f"{value['value']:.3f} ± {value['stderr']:.3f}" for value in values]
        size = f"{each['bytes'] / 1e6:.1f} MB"
        lines.append([each["label"], size, *errors, status])
    return ["candidate", "file", "bits per byte", "more than the parent", "KL on kept tokens", ""], lines


def _place(each: Found) -> list[tuple[bool, int, str]]:
    """By name, numbers in it as numbers."""
    parts = re.split(r"(\d+)", each["row"]["name"])
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _diagonal(domain: str, slices: Mapping[str, Found]) -> str:
    """Whether a domain's slice needs fewer bits than every other, document by document."""
    bits = {name: np.array(each["healed"]["domains"][domain]["bits"]) for name, each in slices.items()}
    own = bits.pop(domain)
    differences = corrected(
        {other: paired_difference(own, theirs, np.ones(len(own))) for other, theirs in bits.items()}
    )
    fewer = [each.significant and each.value < 0 for each in differences.values()]
    return "-" if not fewer else "best" if all(fewer) else "not shown to be best"


def _stderr(values: Sequence[float]) -> float:
    """The standard error of a sum."""
    count, mean = len(values), sum(values) / len(values)
    return sqrt(count / (count - 1) * sum((value - mean) ** 2 for value in values))


def _less_plain(file: Found, domain: str, found: Sequence[Found]) -> str:
    """The relative bits of a file less those of the best plain quant of no more bytes."""
    plain = [each["plain"] for each in found if "plain" in each and each["row"]["domain"] == domain]
    if not plain:
        return "-"
    rivals = [each for each in plain if each["bytes"] <= file["bytes"]]
    if not rivals:
        smallest = min(each["bytes"] for each in plain)
        return f"none as small (least {smallest / 1e6:.0f} MB)"
    theirs = min((each["bits"] for each in rivals), key=sum)
    gains = [a - b for a, b in zip(file["bits"], theirs, strict=True)]
    return f"{sum(gains) / sum(theirs):+.1%} ± {_stderr(gains) / sum(theirs):.1%}"


def _line(each: Found, form: str, found: Sequence[Found]) -> list[str]:
    row = each["row"]
    likely, file = each[form]["domains"][row["domain"]], each[form]["file"]
    lost = likely["lost_mass"]
    healing = each.get("healing") or {}
    steps = f", {healing['tokens'] / 1000:.0f} k tokens" if form == "healed" else ""
    base = likely["parent"]["value"]
    return [
        row["name"],
        form + steps,
        str(len(each["layers"])),
        f"{file['bytes'] / 1e6:.1f} MB",
        f"{likely['kl']['value']:.3f} ± {likely['kl']['stderr']:.3f}",
        f"{lost['value']:.2%}" if lost else "-",
        f"{likely['bits_per_byte']['value']:.3f} ± {likely['bits_per_byte']['stderr']:.3f}",
        _relative(likely["bits_over_parent"], base),
        _relative(file["bits_over_parent"], base),
        _less_plain(file, row["domain"], found),
        *_tasks(file),
    ]


def _tasks(file: Found) -> list[str]:
    """A row measured before a probe was what it is now has none of it."""
    return [_share(file["writing"][task]) if task in file["writing"] else "-" for task in TASKS]


def _relative(more: Mapping[str, float], base: float) -> str:
    return f"{more['value'] / base:+.1%} ± {more['stderr'] / base:.1%}"


def _share(value: Mapping[str, float]) -> str:
    return f"{value['value']:.0%} ± {value['stderr']:.0%}"
