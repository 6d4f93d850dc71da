"""The tables of docs/RESULTS.md, from the rows that `scripts/results.py` measured. Measures nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from result_rows import DOMAINS

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
COLUMNS += ["as Q4_K_M", "arithmetic", "brackets", "repetition"]
SURE = 3.0  # standard errors


def rows_table(found: Sequence[Found], table: str) -> tuple[list[str], list[list[str]]]:
    """Every row of a table, raw and healed, with likelihoods and writing."""
    lines = []
    for each in found:
        if each["row"]["table"] != table:
            continue
        for form in FORMS:
            if form in each:
                lines.append(_line(each, form))
        if "not_healed" in each:
            lines.append([each["row"]["name"], "healing did not help", *["-"] * (len(COLUMNS) - 2)])
    return COLUMNS, lines


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


def _diagonal(domain: str, slices: Mapping[str, Found]) -> str:
    """Whether a domain's slice needs fewer bits than every other, document by document."""
    own = slices[domain]["healed"]["domains"][domain]["bits"]
    said = []
    for other, each in slices.items():
        if other != domain:
            theirs = each["healed"]["domains"][domain]["bits"]
            said.append(_ahead([b - a for a, b in zip(own, theirs, strict=True)]))
    return "-" if not said else "best" if all(said) else "not shown to be best"


def _ahead(gains: Sequence[float]) -> bool:
    """Whether a sum over documents is above zero by more than `SURE` of its standard errors."""
    count, total = len(gains), sum(gains)
    mean = total / count
    spread = sum((gain - mean) ** 2 for gain in gains)
    return total > SURE * (count / (count - 1) * spread) ** 0.5


def _line(each: Found, form: str) -> list[str]:
    row, found = each["row"], each[form]
    likely, file = found["domains"][row["domain"]], found["file"]
    lost = likely["lost_mass"]
    healing = each.get("healing") or {}
    steps = f", {healing['tokens'] / 1000:.0f} k tokens" if form == "healed" else ""
    base, writing = likely["parent"]["value"], file["writing"]
    return [
        row["name"],
        form + steps,
        str(len(each["layers"])),
        f"{file['bytes'] / 1e6:.1f} MB",
        f"{likely['kl']['value']:.3f} ± {likely['kl']['stderr']:.3f}",
        f"{lost['value']:.2%}" if lost else "-",
        f"{likely['bits_per_byte']['value']:.3f} ± {likely['bits_per_byte']['stderr']:.3f}",
        _relative(likely["more"], base),
        _relative(file["more"], base),
        *(_share(writing[task]) for task in ("arithmetic", "brackets", "repetition")),
    ]


def _relative(more: Mapping[str, float], base: float) -> str:
    return f"{more['value'] / base:+.1%} ± {more['stderr'] / base:.1%}"


def _share(value: Mapping[str, float]) -> str:
    return f"{value['value']:.0%} ± {value['stderr']:.0%}"
