"""Bits per byte by position in long documents, one line a model."""

from collections.abc import Mapping
from math import sqrt
from typing import Any

from slices.pictures.figure import as_svg, new_figure

Json = Mapping[str, Any]
_FIRST = 128  # tokens: where the first bin, which begins at 0, is drawn from on a logarithmic axis
_SHIFT = 1.03  # of one model's points from the next's, so that their error bars do not overlap


def plot_bits_by_position(report: Json, domain: str) -> str:
    """Bits per byte with standard errors at the geometric middle of each bin, in tokens of the reference.

    Args:
        report: in the form of `slices.report.as_json`; a model without long text is left out.
    """
    figure = new_figure(7, 4)
    axes = figure.subplots()
    lines = {name: result["long_context"] for name, result in report["slices"].items()}
    lines = {name: found[domain] for name, found in lines.items() if found and found.get(domain)}
    for number, (name, bins) in enumerate(lines.items()):
        middles = [_middle(each) * _SHIFT ** (number - (len(lines) - 1) / 2) for each in bins]
        values = [each["bits_per_byte"]["value"] for each in bins]
        errors = [each["bits_per_byte"]["stderr"] or 0.0 for each in bins]
        axes.errorbar(middles, values, errors, marker="o", capsize=3, label=name)
    bins = report["long_context"]["domains"][domain]["bins"]
    axes.set_xscale("log", base=2)
    axes.set_xticks([_FIRST, *(each["end"] for each in bins)], ["0", *(f"{each['end']:,}" for each in bins)])
    axes.set_xlabel(f"position in the document, tokens of {report['long_context']['reference']}")
    axes.set_ylabel("bits per byte")
    axes.set_title(f"bits per byte by position on {domain}")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    return as_svg(figure)


def _middle(each: Json) -> float:
    return sqrt(max(each["start"], _FIRST) * each["end"])
