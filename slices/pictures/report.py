"""The pictures of a report: size against quality, the matrix, ladders, healing curves; as SVG text."""

from collections.abc import Mapping, Sequence
from typing import Any

from slices.pictures.figure import as_svg, new_figure

Json = Mapping[str, Any]


def frontier(found: Json, domain: str) -> str:
    """Bytes against bits per byte on a domain: every model, and the parent's plain quants."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    _points(axes, "models", found["slices"], domain)
    if found["parent_quants"]:
        _points(axes, "plain quants of the parent", found["parent_quants"], domain)
    axes.set_title(f"size and quality on {domain}")
    axes.set_xlabel("MB")
    axes.set_xscale("log")
    axes.set_ylabel("bits per byte")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    return as_svg(figure)


def matrix(found: Json) -> str:
    """Bits per byte by slice and domain, as a share of the best in each domain."""
    names, domains = list(found["slices"]), list(found["domains"])
    values = [
        [found["slices"][name]["domains"][domain]["bits_per_byte"]["value"] for domain in domains]
        for name in names
    ]
    least = [min(column) for column in zip(*values, strict=True)]
    shares = [[value / low for value, low in zip(row, least, strict=True)] for row in values]
    figure = new_figure(2.5 + 1.1 * len(domains), 1.5 + 0.4 * len(names))
    axes = figure.subplots()
    axes.imshow(shares, cmap="YlOrRd", vmin=1, vmax=max(1.5, min(3.0, max(map(max, shares)))), aspect="auto")
    axes.set_xticks(range(len(domains)), domains, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            axes.text(x, y, f"{share:.2f}", ha="center", va="center", fontsize=8)
    axes.set_title("bits per byte over the best of each domain")
    return as_svg(figure)


def ladder(name: str, rungs: Sequence[Json]) -> str:
    """Bytes against KL to the bf16 slice, a point a type."""
    figure = new_figure(7, 3.5)
    axes = figure.subplots()
    known = sorted((rung for rung in rungs if rung.get("kl")), key=lambda rung: rung["bytes"])
    sizes, kls = [rung["bytes"] / 1e6 for rung in known], [rung["kl"]["mean"] for rung in known]
    axes.errorbar(sizes, kls, [rung["kl"]["stderr"] for rung in known], marker="o")
    for rung, size, kl in zip(known, sizes, kls, strict=True):
        axes.annotate(rung["type"], (size, kl), textcoords="offset points", xytext=(4, 6), fontsize=8)
    axes.set_title(f"ladder of {name}")
    axes.set_xlabel("MB")
    axes.set_ylabel("KL to the bf16 slice, nats a token")
    axes.set_yscale("log")
    axes.grid(visible=True, which="both", alpha=0.3)
    return as_svg(figure)


def healing(name: str, curve: Sequence[Json]) -> str:
    """KL to the parent on held-out text, by tokens read."""
    figure = new_figure(7, 3.5)
    axes = figure.subplots()
    tokens = [point["tokens"] / 1000 for point in curve]
    kls = [point["kl"] for point in curve]
    axes.errorbar(tokens, [kl["value"] for kl in kls], [kl["stderr"] for kl in kls], marker=".")
    axes.set_title(f"healing of {name}")
    axes.set_xlabel("thousand tokens read")
    axes.set_ylabel("KL to the parent, nats a token")
    axes.set_yscale("log")
    axes.grid(visible=True, which="both", alpha=0.3)
    return as_svg(figure)


def _points(axes: Any, label: str, rows: Json, domain: str) -> None:
    known = {name: row for name, row in rows.items() if domain in row["domains"]}
    found = [row["domains"][domain]["bits_per_byte"] for row in known.values()]
    sizes = [row["bytes"] / 1e6 for row in known.values()]
    axes.errorbar(
        sizes, [each["value"] for each in found], [each["stderr"] for each in found], fmt="o", label=label
    )
    for name, size, each in zip(known, sizes, found, strict=True):
        axes.annotate(name, (size, each["value"]), textcoords="offset points", xytext=(4, 6), fontsize=8)
