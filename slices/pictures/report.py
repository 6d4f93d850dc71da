"""Plots of an evaluation report as SVG: size against quality, heatmap, quantization ladder, healing curve."""

from collections.abc import Mapping, Sequence
from typing import Any

from slices.pictures.figure import as_svg, new_figure

Json = Mapping[str, Any]


def plot_size_and_quality(report: Json, domain: str) -> str:
    """Bytes against bits per byte on a domain, of every model and of the quants of the parent."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    _scatter(axes, "models", report["slices"], domain)
    if report["parent_quants"]:
        _scatter(axes, "quants of the parent", report["parent_quants"], domain)
    axes.set_title(f"size and bits per byte on {domain}")
    axes.set_xlabel("MB")
    axes.set_xscale("log")
    axes.set_ylabel("bits per byte")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    return as_svg(figure)


def plot_heatmap(report: Json) -> str:
    """Bits per byte by model and domain, relative to the best on each domain."""
    names, domains = list(report["slices"]), list(report["domains"])
    values = [
        [report["slices"][name]["domains"][domain]["bits_per_byte"]["value"] for domain in domains]
        for name in names
    ]
    best = [min(column) for column in zip(*values, strict=True)]
    ratios = [[value / lowest for value, lowest in zip(row, best, strict=True)] for row in values]
    figure = new_figure(2.5 + 1.1 * len(domains), 1.5 + 0.4 * len(names))
    axes = figure.subplots()
    axes.imshow(ratios, cmap="YlOrRd", vmin=1, vmax=max(1.5, min(3.0, max(map(max, ratios)))), aspect="auto")
    axes.set_xticks(range(len(domains)), domains, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    for y, row in enumerate(ratios):
        for x, ratio in enumerate(row):
            axes.text(x, y, f"{ratio:.2f}", ha="center", va="center", fontsize=8)
    axes.set_title("bits per byte relative to the best on each domain")
    return as_svg(figure)


def plot_ladder(name: str, trials: Sequence[Json]) -> str:
    """Bytes against KL to the bf16 slice, one point per quantization type."""
    figure = new_figure(7, 3.5)
    axes = figure.subplots()
    measured = sorted((trial for trial in trials if trial.get("kl")), key=lambda trial: trial["bytes"])
    sizes, kls = [trial["bytes"] / 1e6 for trial in measured], [trial["kl"]["mean"] for trial in measured]
    axes.errorbar(sizes, kls, [trial["kl"]["stderr"] for trial in measured], marker="o")
    for trial, size, kl in zip(measured, sizes, kls, strict=True):
        axes.annotate(trial["type"], (size, kl), textcoords="offset points", xytext=(4, 6), fontsize=8)
    axes.set_title(f"quantization ladder of {name}")
    axes.set_xlabel("MB")
    axes.set_ylabel("KL to the bf16 slice, nats/token")
    axes.set_yscale("log")
    axes.grid(visible=True, which="both", alpha=0.3)
    return as_svg(figure)


def plot_healing_curve(name: str, curve: Sequence[Json]) -> str:
    """KL to the parent on held-out text, by training tokens."""
    figure = new_figure(7, 3.5)
    axes = figure.subplots()
    tokens = [point["tokens"] / 1000 for point in curve]
    kls = [point["kl"] for point in curve]
    axes.errorbar(tokens, [kl["value"] for kl in kls], [kl["stderr"] for kl in kls], marker=".")
    axes.set_title(f"healing of {name}")
    axes.set_xlabel("thousand training tokens")
    axes.set_ylabel("KL to the parent, nats/token")
    axes.set_yscale("log")
    axes.grid(visible=True, which="both", alpha=0.3)
    return as_svg(figure)


def _scatter(axes: Any, label: str, models: Json, domain: str) -> None:
    measured = {name: model for name, model in models.items() if domain in model["domains"]}
    values = [model["domains"][domain]["bits_per_byte"] for model in measured.values()]
    sizes = [model["bytes"] / 1e6 for model in measured.values()]
    axes.errorbar(
        sizes, [each["value"] for each in values], [each["stderr"] for each in values], fmt="o", label=label
    )
    for name, size, each in zip(measured, sizes, values, strict=True):
        axes.annotate(name, (size, each["value"]), textcoords="offset points", xytext=(4, 6), fontsize=8)
