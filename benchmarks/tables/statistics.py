"""Tables of the simulated nulls: how often tests find a difference. Measures nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.statistics.methods import BEFORE, METHODS, NOW

Row = Mapping[str, Any]
Lines = tuple[list[str], list[list[str]]]  # columns, rows


def single_lines(figures: Mapping[str, Any], key: str) -> Lines:
    """A share of single comparisons, by null and number of documents; a column for each method.

    Args:
        key: "false_positives" or "power".
    """
    return _lines(figures["results"]["single"], lambda row: _percent(row[key]))


def family_lines(figures: Mapping[str, Any]) -> Lines:
    """Families with a false positive, and planted differences that were found."""
    return _lines(
        figures["results"]["families"],
        lambda row: f"{_percent(row['false_positives'])} / {_percent(row['power'])}",
    )


def _lines(rows: Sequence[Row], cell: Callable[[Row], str]) -> Lines:
    cells = {(row["null"], row["documents"], row["method"]): cell(row) for row in rows}
    names = {BEFORE: f"{BEFORE} (before)", NOW: f"**{NOW} (now)**"}
    columns = ["gaps", "documents", *(names.get(method, method) for method in (*METHODS, NOW))]
    keys = dict.fromkeys((row["null"], row["documents"]) for row in rows)
    return columns, [
        [null, str(count), *(cells.get((null, count, method), "not tested") for method in (*METHODS, NOW))]
        for null, count in keys
    ]


def _percent(share: float) -> str:
    return f"{share:.1%}"
