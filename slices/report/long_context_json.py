"""Long text in the JSON object of `mom eval --json`; docs/reference/report.md describes every key."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from slices.measure.paired import Difference
from slices.report.long_context_result import BINS, Key, LongContextReport

Json = dict[str, Any]


def long_context_json(report: LongContextReport | None) -> Json | None:
    """What all models share: window, notes, and by domain the documents and bytes of every bin."""
    if report is None:
        return None
    return {
        "reference": report.reference,
        "longest": report.longest,
        "notes": report.notes,
        "comparisons": sum(each.p is not None for each in report.differences().values()),
        "domains": {domain: _domain(report, domain) for domain in report.texts},
    }


def positions_json(report: LongContextReport | None) -> dict[str, Json]:
    """By model and domain, bits per byte in every bin and the difference to the baseline."""
    if report is None:
        return {}
    differences = report.differences()
    return {
        name: {domain: _positions(report, name, domain, differences) for domain in report.texts}
        for name in report.models
    }


def _domain(report: LongContextReport, domain: str) -> Json:
    text = report.texts[domain]
    sizes = {
        index: [each[index] for each in text.nbytes if len(each) > index] for index in report.bins(domain)
    }
    return {
        "sha256": text.sha256,
        "documents": len(text.parts),
        "bins": [
            {"start": BINS[index][0], "end": BINS[index][1], "documents": len(each), "bytes": sum(each)}
            for index, each in sizes.items()
        ],
    }


def _positions(
    report: LongContextReport, name: str, domain: str, differences: Mapping[Key, Difference]
) -> list[Json]:
    found = []
    for index in report.bins(domain):
        value = report.bits_per_byte(name, domain, index)
        if value is not None:
            difference = differences.get((name, domain, index))
            found.append(
                {
                    "start": BINS[index][0],
                    "end": BINS[index][1],
                    "documents": len(report.documents(name, domain, index)),
                    "bits_per_byte": {"value": value[0], "stderr": value[1]},
                    "vs_baseline": None if difference is None else asdict(difference),
                }
            )
    return found
