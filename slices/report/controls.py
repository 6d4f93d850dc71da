"""The control of every row: the parent's plain quants of at most its bytes, on the same text.

They become rows of the matrix, and the verdict of each slice's file on its own domain.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slices import manifest
from slices.estimate import Estimate, ratio
from slices.manifest import BF16, Verdict
from slices.measure.compare_mode import CompareMode
from slices.measure.dominated import smallest, unknown, verdict
from slices.measure.judge import CHEAP
from slices.measure.plain import Plain, plain_quants
from slices.measure.score import Progress
from slices.report.run import Report, Row


@dataclass(frozen=True)
class Controls:
    """Plain quants by label: bytes, and bits per byte by domain. Verdicts by model, on its own domain."""

    bytes: Mapping[str, int]
    bits_per_byte: Mapping[str, Mapping[str, Estimate]]
    verdicts: Mapping[str, Verdict]


def controls(
    report: Report,
    parent: Path | None,
    when: CompareMode = CompareMode.AUTO,
    progress: Progress | None = None,
) -> Controls:
    """Measure the plain quants that the rows of slices call for.

    Args:
        parent: of the slices; None, and nothing is measured.
        when: auto leaves out parents of more than `CHEAP` bytes, always does not, never measures nothing.
    """
    rows = {name: row for name, row in report.rows.items() if own_domain(row) is not None}
    reason = _reason(rows, parent, when)
    if reason or parent is None:
        return Controls({}, {}, {name: _unknown(row, reason) for name, row in rows.items()})
    found: dict[tuple[str, str], Plain] = {}
    verdicts = {}
    for name, row in rows.items():
        for domain, text in report.texts.items():
            rivals = plain_quants(parent, text, row.bytes, report.wish.threads, progress)
            found |= {(each.label, domain): each for each in rivals}
            if domain == own_domain(row):
                verdicts[name] = _verdict(row, domain, rivals, report)
    return Controls(_bytes(found), _bits(found, report), verdicts)


def own_domain(row: Row) -> str | None:
    """The domain that a slice is for; None for what is no slice."""
    folder = row.subject.folder
    return manifest.read(folder).domain if (folder / manifest.FILE).is_file() else None


def _reason(rows: Mapping[str, Row], parent: Path | None, when: CompareMode) -> str:
    """Why nothing is measured, if so it is."""
    if when == "never" or not rows or parent is None:
        return "it was not measured; --compare always does"
    stated = next(iter(rows.values())).subject.folder
    if when == "auto" and manifest.read(stated).parent.bytes > CHEAP:
        return "the parent is big, so it was not measured; --compare always does"
    return ""


def _verdict(row: Row, domain: str, rivals: list[Plain], report: Report) -> Verdict:
    of, cell, text = row.subject.file or BF16, row.cells[domain], report.texts[domain]
    if not rivals:
        return smallest(of, domain, text)
    return verdict(of, domain, np.array(cell.bits), np.array(cell.bytes), rivals, text)


def _unknown(row: Row, reason: str) -> Verdict:
    return unknown(row.subject.file or BF16, own_domain(row) or "", reason)


def _bytes(found: Mapping[tuple[str, str], Plain]) -> dict[str, int]:
    return {label: each.bytes for (label, _), each in sorted(found.items(), key=lambda item: item[1].bytes)}


def _bits(found: Mapping[tuple[str, str], Plain], report: Report) -> dict[str, dict[str, Estimate]]:
    cells = next(iter(report.rows.values())).cells
    bits: dict[str, dict[str, Estimate]] = {label: {} for label in _bytes(found)}
    for (label, domain), each in found.items():
        bits[label][domain] = ratio(each.values, np.array(cells[domain].bytes))
    return bits
