"""Records a report's measurements in each slice's slice.json: values with standard errors, data, code."""

from collections.abc import Iterator, Sequence

import numpy as np

from slices import manifest
from slices.estimate import Estimate, ratio
from slices.manifest import BF16, BITS, PARENT, RELATIVE, SPEED, Measurement
from slices.report.domain_result import DomainResult
from slices.report.evaluate import EvalReport, ModelResult


def record_measurements(report: EvalReport, code: str) -> None:
    """Write every slice's values, in place of older ones of the same file, metric and data.

    Args:
        code: the version that measured.
    """
    for result in report.models.values():
        folder = result.model.folder
        if not (folder / manifest.FILE).is_file():
            continue
        recorded = manifest.read(folder)
        new = [*_measurements(result, report, code), *_parent_measurements(report, code)]
        replaced = {(each.variant, each.domain, each.metric, each.data) for each in new}
        kept = [m for m in recorded.measurements if (m.variant, m.domain, m.metric, m.data) not in replaced]
        manifest.write(folder, recorded.model_copy(update={"measurements": [*kept, *new]}))


def _measurements(result: ModelResult, report: EvalReport, code: str) -> Iterator[Measurement]:
    variant = result.model.file or BF16
    for domain, found in result.domains.items():
        data = report.heldout[domain].sha256
        for metric, estimate in _estimates(found).items():
            yield _measurement(variant, domain, metric, estimate, data, code)
        for task, stored in found.scores.items():
            yield _measurement(variant, domain, task, stored.load(task).mean, stored.data_sha256, code)
        if report.baseline == PARENT:
            parent = report.models[PARENT].domains[domain]
            for metric, (estimate, digest) in _relative_to_parent(found, parent, data).items():
                yield _measurement(variant, domain, metric + RELATIVE, estimate, digest, code)
    yield _measurement(variant, "", SPEED, Estimate(result.overall.decode_tokens_per_second, 0.0), "", code)
    for probe, stored in result.overall.probes.items():
        yield _measurement(variant, "", probe, stored.load(probe).mean, stored.data_sha256, code)


def _parent_measurements(report: EvalReport, code: str) -> Iterator[Measurement]:
    """Bits per byte and task scores of the parent on the same text and items, where it was the baseline."""
    if report.baseline == PARENT:
        for domain, found in report.models[PARENT].domains.items():
            estimate = ratio(np.array(found.bits), np.array(found.bytes))
            yield _measurement(PARENT, domain, BITS, estimate, report.heldout[domain].sha256, code)
            for task, stored in found.scores.items():
                yield _measurement(PARENT, domain, task, stored.load(task).mean, stored.data_sha256, code)


def _relative_to_parent(
    found: DomainResult, parent: DomainResult, text_sha256: str
) -> dict[str, tuple[Estimate, str]]:
    """Relative changes from the parent, paired by document and item, and the digest of what they are on."""
    changes = {BITS: (_relative_change(found.bits, parent.bits), text_sha256)}
    for task, stored in found.scores.items():
        theirs = parent.scores.get(task)
        same = theirs is not None and theirs.data_sha256 == stored.data_sha256
        if theirs and same and sum(theirs.scores) > 0 and len(theirs.scores) > 1:
            changes[task] = (_relative_change(stored.scores, theirs.scores), stored.data_sha256)
    return changes


def _relative_change(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    share = ratio(np.array(ours), np.array(theirs))
    return Estimate(share.value - 1, share.stderr)


def _estimates(found: DomainResult) -> dict[str, Estimate]:
    estimates = {BITS: ratio(np.array(found.bits), np.array(found.bytes))}
    if found.divergence is not None:
        estimates["kl"] = found.divergence.kl
        estimates["kl_first_piece"] = found.divergence.kl_first_piece
        estimates["same_top1"] = found.divergence.same_top1
        estimates["lost_mass"] = found.divergence.lost_mass
    return estimates


def _measurement(
    variant: str, domain: str, metric: str, estimate: Estimate, data: str, code: str
) -> Measurement:
    return Measurement(
        variant=variant,
        domain=domain,
        metric=metric,
        value=estimate.value,
        stderr=estimate.stderr,
        data=data,
        code=code,
    )
