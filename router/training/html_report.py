"""`mom route eval --html`: one self-contained page of figures and pictures; nothing is fetched."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slices.pictures.figure import as_svg, new_figure
from slices.report.html_report import render_template

_TEMPLATE = Path(__file__).with_name("html_report.html")
Json = Mapping[str, Any]


def page(found: Json) -> str:
    """The HTML of a `RouteReport` as JSON. Names in it are escaped.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figures = [confusion(found["confusion"]), reliability(found["reliability"]), coverage(found["coverage"])]
    return render_template(_TEMPLATE, found=found, figures=figures)


def confusion(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Shares of each label's queries by the class found likeliest."""
    labels = list(counts)
    guesses = sorted({guess for row in counts.values() for guess in row} | set(labels))
    figure = new_figure(2.5 + 0.7 * len(guesses), 2 + 0.45 * len(labels))
    axes = figure.subplots()
    shares = [[counts[label].get(g, 0) / sum(counts[label].values()) for g in guesses] for label in labels]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(guesses)), guesses, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            if share >= 0.005:
                color = "white" if share > 0.5 else "black"
                axes.text(x, y, f"{share:.0%}", ha="center", va="center", fontsize=8, color=color)
    axes.set_title("label (rows) and likeliest class (columns)")
    return as_svg(figure)


def reliability(bins: list[Mapping[str, float]]) -> str:
    """Stated against true accuracy; points as large as the bins are full."""
    figure = new_figure(5, 4)
    axes = figure.subplots()
    total = sum(each["n"] for each in bins)
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    axes.scatter(
        [each["confidence"] for each in bins],
        [each["accuracy"] for each in bins],
        [20 + 400 * each["n"] / total for each in bins],
    )
    axes.set_xlabel("stated probability")
    axes.set_ylabel("share that was right")
    axes.set_title("calibration")
    axes.grid(visible=True, alpha=0.3)
    return as_svg(figure)


def coverage(points: list[Mapping[str, float]]) -> str:
    """Accuracy of the surest share of queries."""
    figure = new_figure(5, 3.5)
    axes = figure.subplots()
    axes.plot([each["coverage"] for each in points], [each["accuracy"] for each in points], marker="o")
    axes.set_xlabel("share of queries answered, the surest first")
    axes.set_ylabel("share that was right")
    axes.set_title("coverage and risk")
    axes.grid(visible=True, alpha=0.3)
    return as_svg(figure)
