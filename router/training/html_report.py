"""`mom route eval --html`: one self-contained HTML page of figures and plots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from router.training.dataset import OOD
from slices.pictures.figure import as_svg, new_figure
from slices.report.html_report import render_template

_TEMPLATE = Path(__file__).with_name("html_report.html")
Json = Mapping[str, Any]


def page(report: Json) -> str:
    """The HTML of a `RouteReport` as JSON; names in it are escaped.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    matrices = [
        confusion(report["confusion"], "routed decisions: label (rows), chosen expert (columns)"),
        confusion(report["forced"]["confusion"], "forced choice: label (rows), likeliest class (columns)"),
    ]
    curves = [reliability(report["reliability"]), coverage(report["coverage"])]
    return render_template(_TEMPLATE, report=report, matrices=matrices, curves=curves)


def confusion(counts: Mapping[str, Mapping[str, int]], title: str) -> str:
    """A confusion matrix, normalized by label."""
    labels = list(counts)
    predicted = sorted({name for row in counts.values() for name in row} | (set(labels) - {OOD}))
    figure = new_figure(2.5 + 0.7 * len(predicted), 2 + 0.45 * len(labels))
    axes = figure.subplots()
    shares = [[counts[label].get(g, 0) / sum(counts[label].values()) for g in predicted] for label in labels]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(predicted)), predicted, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            if share >= 0.005:
                color = "white" if share > 0.5 else "black"
                axes.text(x, y, f"{share:.0%}", ha="center", va="center", fontsize=8, color=color)
    axes.set_title(title)
    return as_svg(figure)


def reliability(bins: list[Mapping[str, float]]) -> str:
    """The reliability diagram; marker size shows the bin's count."""
    figure = new_figure(5, 4)
    axes = figure.subplots()
    total = sum(each["n"] for each in bins)
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    axes.scatter(
        [each["confidence"] for each in bins],
        [each["accuracy"] for each in bins],
        [20 + 400 * each["n"] / total for each in bins],
    )
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_title("calibration")
    axes.grid(visible=True, alpha=0.3)
    return as_svg(figure)


def coverage(points: list[Mapping[str, float]]) -> str:
    """The risk-coverage curve."""
    figure = new_figure(5, 3.5)
    axes = figure.subplots()
    axes.plot([each["coverage"] for each in points], [each["accuracy"] for each in points], marker="o")
    axes.set_xlabel("coverage (most confident first)")
    axes.set_ylabel("accuracy")
    axes.set_title("accuracy by coverage")
    axes.grid(visible=True, alpha=0.3)
    return as_svg(figure)
