"""`mom eval --html`: the figures of a report and of its slices' history, on one page."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slices import manifest
from slices.files.atomic import write_text
from slices.pictures import report as pictures
from slices.pictures.figure import new_figure
from slices.report.page import Figure, page


def check_pictures() -> None:
    """Called before the work, not after.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    new_figure(1, 1)


def write_page(found: Mapping[str, Any], slices: Sequence[str], path: Path) -> None:
    """Write the report of `slices` as a page, in one step."""
    figures = [*_of_report(found), *(figure for each in slices for figure in _of_slice(each))]
    write_text(path, page(found, figures))


def _of_report(found: Mapping[str, Any]) -> Iterator[Figure]:
    if len(found["domains"]) > 1 and len(found["slices"]) > 1:
        yield Figure(pictures.matrix(found), "Bits per byte of every model, over the best of each domain.")
    own = [row["domain"] for row in found["slices"].values() if row["domain"] in found["domains"]]
    for domain in dict.fromkeys(own or found["domains"]):
        yield Figure(pictures.frontier(found, domain), f"Size and quality on {domain}; lower left is better.")


def _of_slice(reference: str) -> Iterator[Figure]:
    """What slice.json tells of ladders and of healing."""
    folder = Path(reference) if Path(reference).is_file() else manifest.find_or_checkpoint(reference)
    if not (folder / manifest.FILE).is_file():
        return
    made = manifest.read(folder)
    for quantized in made.quantized:
        rungs = (quantized.model_extra or {}).get("ladder")
        if rungs:
            yield Figure(pictures.ladder(made.name, rungs), f"How {quantized.file} was chosen.")
            break
    if made.healing and made.healing.get("curve"):
        yield Figure(pictures.healing(made.name, made.healing["curve"]), f"How {made.name} was healed.")
