"""The long text of a report of `mom eval` as tables in the terminal, from its JSON form."""

from collections.abc import Mapping
from typing import Any

from mom.display import console

Json = Mapping[str, Any]


def show_long_context(report: Json) -> None:
    """Bits per byte by position, a table for each domain; the notes as warnings."""
    found = report["long_context"]
    if found is None:
        return
    for note in found["notes"]:
        console.warn(f"long text: {note}")
    for domain, text in found["domains"].items():
        if text["bins"]:
            _show_domain(report, domain, text)


def _show_domain(report: Json, domain: str, text: Json) -> None:
    columns = [f"{each['start']:,}-{each['end']:,} ({each['documents']} documents)" for each in text["bins"]]
    rows = []
    for name, result in report["slices"].items():
        if result["long_context"] is not None:
            cells = {each["start"]: _cell(each) for each in result["long_context"][domain]}
            rows.append([name, *(cells.get(each["start"], "-") for each in text["bins"])])
    reference = report["long_context"]["reference"]
    title = f"{domain}: bits/byte by position, in tokens of {reference} (*: p < 0.05)"
    console.print_table(title, ["slice", *columns], rows)


def _cell(each: Json) -> str:
    """Value, standard error, and the difference to the baseline, marked where it is significant."""
    bits, difference = each["bits_per_byte"], each["vs_baseline"]
    error = "" if bits["stderr"] is None else f" ± {bits['stderr']:.3f}"
    if difference is None:
        return f"{bits['value']:.3f}{error}"
    mark = "*" if difference["p"] is not None and difference["p"] < 0.05 else ""
    return f"{bits['value']:.3f}{error} ({difference['value']:+.3f}{mark})"
