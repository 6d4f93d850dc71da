"""`mom eval --html`: the report with plots of its results and of its slices' ladders and healing."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slices import manifest
from slices.files.atomic import write_text
from slices.pictures import report as plots
from slices.pictures.bits_by_position import plot_bits_by_position
from slices.report.html_report import Plot, html_report


def write_page(report: Mapping[str, Any], slices: Sequence[str], path: Path) -> None:
    """Write the report of `slices` as an HTML page, atomically."""
    found = [*_result_plots(report), *(plot for each in slices for plot in _slice_plots(each))]
    write_text(path, html_report(report, found))


def _result_plots(report: Mapping[str, Any]) -> Iterator[Plot]:
    if len(report["domains"]) > 1 and len(report["slices"]) > 1:
        yield Plot(
            plots.plot_heatmap(report), "Bits per byte of every model, relative to the best on each domain."
        )
    own = [each["domain"] for each in report["slices"].values() if each["domain"] in report["domains"]]
    for domain in dict.fromkeys(own or report["domains"]):
        yield Plot(
            plots.plot_size_and_quality(report, domain),
            f"Size and bits per byte on {domain}; lower left is better.",
        )
    for domain, text in (report["long_context"] or {"domains": {}})["domains"].items():
        if text["bins"]:
            caption = "Bits per byte by position in long documents, with standard errors; lower is better."
            yield Plot(plot_bits_by_position(report, domain), caption)


def _slice_plots(reference: str) -> Iterator[Plot]:
    """The quantization ladder and the healing curve in slice.json."""
    folder = Path(reference) if Path(reference).is_file() else manifest.find_or_checkpoint(reference)
    if not (folder / manifest.FILE).is_file():
        return
    made = manifest.read(folder)
    for quantized in made.quantized:
        trials = (quantized.model_extra or {}).get("ladder")
        if trials:
            yield Plot(plots.plot_ladder(made.name, trials), f"Quantization ladder of {quantized.file}.")
            break
    if made.healing and made.healing.get("curve"):
        yield Plot(plots.plot_healing_curve(made.name, made.healing["curve"]), f"Healing of {made.name}.")
