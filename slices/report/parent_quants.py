"""The rival of each slice of a report: the parent's best plain quant of at most its bytes on its own domain.

They become rows of the table, and the verdict on each slice's file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slices.errors import SliceError
from slices.estimate import Estimate, ratio
from slices.manifest import BF16, Verdict
from slices.measure.compare_mode import NOT_MEASURED, CompareMode
from slices.measure.dominated import correct_verdicts, unknown_verdict, verdict
from slices.measure.plain import PlainQuant
from slices.measure.rival import Rival, RivalText, find_rival, skip_reason
from slices.progress import Progress, no_progress
from slices.report.evaluate import EvalReport, ModelResult


@dataclass(frozen=True)
class ParentQuants:
    """Quants of the parent by label: bytes, and bits per byte by domain.

    `verdicts` by model, on its own domain, their p-values corrected by Holm's method for how many there are.
    """

    bytes: Mapping[str, int]
    bits_per_byte: Mapping[str, Mapping[str, Estimate]]
    verdicts: Mapping[str, Verdict]


def measure_parent_quants(
    report: EvalReport,
    parent: Path | None,
    texts: Mapping[Path, RivalText | str],
    when: CompareMode = CompareMode.AUTO,
    progress: Progress = no_progress,
) -> ParentQuants:
    """Choose and measure the rival of every slice whose own domain is in a report.

    Args:
        parent: of the slices; None measures nothing.
        texts: by the slice's folder, with the report's text for the verdict; or why there is none.
        when: as for `slices.measure.judge.judge`.
    """
    measured: dict[tuple[str, str], PlainQuant] = {}
    verdicts: dict[str, Verdict] = {}
    for name, result in report.models.items():
        domain = result.model.domain
        if domain is None or domain not in report.heldout:
            continue
        try:
            text = texts.get(result.model.folder, NOT_MEASURED)
            rival, verdicts[name] = _compare(result, domain, parent, text, when, report, progress)
        except SliceError as error:
            rival, verdicts[name] = None, _unknown(result, str(error))
        if rival is not None:
            measured[rival.quant.label, domain] = rival.quant
    return ParentQuants(_bytes(measured), _bits_per_byte(measured, report), correct_verdicts(verdicts))


def _compare(
    result: ModelResult,
    domain: str,
    parent: Path | None,
    text: RivalText | str,
    when: CompareMode,
    report: EvalReport,
    progress: Progress,
) -> tuple[Rival | None, Verdict]:
    if isinstance(text, str):
        return None, _unknown(result, text)
    if parent is None:
        return None, _unknown(result, "it was not measured: there is no parent to compare with")
    if reason := skip_reason(parent, text, result.bytes, when):
        return None, _unknown(result, reason)
    rival = find_rival(parent, text, result.bytes, report.config.threads, progress)
    found = result.domains[domain]
    return rival, verdict(
        variant=result.model.file or BF16,
        domain=domain,
        bits=np.array(found.bits),
        sizes=np.array(found.bytes),
        rival=rival,
        text=text,
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
