"""Quants of the whole parent of at most each slice's bytes, on the same text: the comparison at equal size.

They become rows of the table, and the verdict on each slice's file on its own domain.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slices import manifest
from slices.estimate import Estimate, ratio
from slices.manifest import BF16, Verdict
from slices.measure.compare_mode import CompareMode, skip_reason
from slices.measure.dominated import unknown_verdict, verdict
from slices.measure.plain import PlainQuant, plain_quants
from slices.progress import Progress, no_progress
from slices.report.evaluate import EvalReport, ModelResult


@dataclass(frozen=True)
class ParentQuants:
    """Quants of the parent by label: bytes, and bits per byte by domain.

    `verdicts` by model, on its own domain.
    """

    bytes: Mapping[str, int]
    bits_per_byte: Mapping[str, Mapping[str, Estimate]]
    verdicts: Mapping[str, Verdict]


def measure_parent_quants(
    report: EvalReport,
    parent: Path | None,
    when: CompareMode = CompareMode.AUTO,
    progress: Progress = no_progress,
) -> ParentQuants:
    """Measure the largest quants of the parent that are no larger than the slices of a report.

    Args:
        parent: of the slices; None measures nothing.
        when: as for `slices.measure.judge.judge`.
    """
    slices = {name: result for name, result in report.models.items() if result.model.domain is not None}
    reason = _skip_reason(slices, parent, when)
    if reason or parent is None:
        return ParentQuants({}, {}, {name: _unknown(result, reason) for name, result in slices.items()})
    measured: dict[tuple[str, str], PlainQuant] = {}
    verdicts = {}
    for name, result in slices.items():
        for domain, text in report.heldout.items():
            quants = plain_quants(parent, text, result.bytes, report.config.threads, progress)
            measured |= {(quant.label, domain): quant for quant in quants}
            if domain == result.model.domain:
                verdicts[name] = _verdict(result, domain, quants, report)
    return ParentQuants(_bytes(measured), _bits_per_byte(measured, report), verdicts)


def _skip_reason(slices: Mapping[str, ModelResult], parent: Path | None, when: CompareMode) -> str:
    """Why nothing is measured; empty where something is."""
    if not slices or parent is None:
        return "it was not measured: there is no parent to compare with"
    folder = next(iter(slices.values())).model.folder
    return skip_reason(when, manifest.read(folder).parent.bytes) or ""


def _verdict(result: ModelResult, domain: str, quants: list[PlainQuant], report: EvalReport) -> Verdict:
    found, variant = result.domains[domain], result.model.file or BF16
    return verdict(
        variant=variant,
        domain=domain,
        bits=np.array(found.bits),
        sizes=np.array(found.bytes),
        rivals=quants,
        text=report.heldout[domain],
    )


def _unknown(result: ModelResult, reason: str) -> Verdict:
    return unknown_verdict(result.model.file or BF16, result.model.domain or "", reason)


def _bytes(measured: Mapping[tuple[str, str], PlainQuant]) -> dict[str, int]:
    by_size = sorted(measured.items(), key=lambda item: item[1].bytes)
    return {label: quant.bytes for (label, _), quant in by_size}


def _bits_per_byte(
    measured: Mapping[tuple[str, str], PlainQuant], report: EvalReport
) -> dict[str, dict[str, Estimate]]:
    domains = next(iter(report.models.values())).domains
    values: dict[str, dict[str, Estimate]] = {label: {} for label in _bytes(measured)}
    for (label, domain), quant in measured.items():
        values[label][domain] = ratio(quant.values, np.array(domains[domain].bytes))
    return values
