"""A report as one self-contained page: tables that fit a phone and paper, figures inline, nothing fetched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TEMPLATE = Path(__file__).with_name("page.html")
_TASKS = ("mcq", "mcq_text", "exact_match", "cloze", "code")


@dataclass(frozen=True)
class Figure:
    """An SVG element and what it shows."""

    svg: str
    caption: str


def page(found: Mapping[str, Any], figures: Sequence[Figure]) -> str:
    """The HTML of a report in the JSON form of `slices.report.as_json`. Names and text in it are escaped."""
    rows = found["slices"].values()
    tasks = {
        domain: [task for task in _TASKS if any(task in row["domains"][domain] for row in rows)]
        for domain in found["domains"]
    }
    diagonal = found["diagonal"].items()
    best = [(each["slice"], domain) for domain, own in diagonal for each in own if each["best"]]
    return render(
        _TEMPLATE,
        found=found,
        figures=figures,
        tasks=tasks,
        best=best,
        probes=list(dict.fromkeys(probe for row in rows for probe in row["probes"])),
        costs=any(row["cost"] for row in rows),
        published=any(row["published"] for row in rows),
    )


def render(template: Path, **values: Any) -> str:
    """A template's HTML; values are escaped, and one that it misses is an error."""
    from jinja2 import Environment, StrictUndefined

    world = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return world.from_string(template.read_text(encoding="utf-8")).render(**values)
