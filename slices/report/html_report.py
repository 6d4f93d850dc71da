"""A report as one self-contained HTML page: tables for phones and print, inline plots, nothing fetched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slices.measure.paired import MIN_DOCUMENTS

_TEMPLATE = Path(__file__).with_name("html_report.html")
_TASKS = ("mcq", "mcq_text", "exact_match", "cloze", "code")


@dataclass(frozen=True)
class Plot:
    """A plot as an SVG element, with its caption."""

    svg: str
    caption: str


def html_report(report: Mapping[str, Any], plots: Sequence[Plot]) -> str:
    """The HTML of a report in the form of `slices.report.as_json`. Names and text in it are escaped."""
    results = report["slices"].values()
    tasks = {
        domain: [task for task in _TASKS if any(task in result["domains"][domain] for result in results)]
        for domain in report["domains"]
    }
    own_domain = report["own_domain"].items()
    best = [(each["slice"], domain) for domain, found in own_domain for each in found if each["best"]]
    return render_template(
        _TEMPLATE,
        report=report,
        min_documents=MIN_DOCUMENTS,
        plots=plots,
        tasks=tasks,
        best=best,
        probes=list(dict.fromkeys(probe for result in results for probe in result["probes"])),
        has_costs=any(result["cost"] for result in results),
        has_harness=any(result["harness"] for result in results),
    )


def render_template(template: Path, **values: Any) -> str:
    """A Jinja template's HTML; values are escaped, and a missing one is an error."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(template.read_text(encoding="utf-8")).render(**values)
