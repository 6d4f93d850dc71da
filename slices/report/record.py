"""What a report found of a slice, in its slice.json: values with their errors, the data and the code."""

from collections.abc import Iterator

import numpy as np

from slices import manifest
from slices.estimate import Estimate, ratio
from slices.manifest import BF16, BITS, PARENT, SPEED, Measurement
from slices.report.cell import Cell
from slices.report.run import Report, Row


def record(report: Report, code: str) -> None:
    """Write every slice's values, over older ones of the same file, metric and data."""
    for row in report.rows.values():
        folder = row.subject.folder
        if not (folder / manifest.FILE).is_file():
            continue
        made = manifest.read(folder)
        new = [*_measurements(row, report, code), *_of_parent(report, code)]
        replaced = {(each.of, each.domain, each.metric, each.data) for each in new}
        kept = [m for m in made.measurements if (m.of, m.domain, m.metric, m.data) not in replaced]
        manifest.write(folder, made.model_copy(update={"measurements": [*kept, *new]}))


def _measurements(row: Row, report: Report, code: str) -> Iterator[Measurement]:
    of = row.subject.file or BF16
    for domain, cell in row.cells.items():
        data = report.texts[domain].sha256
        for metric, found in _values(cell).items():
            yield _measurement(of, domain, metric, found, data, code)
        for task, scores in cell.outcomes.items():
            yield _measurement(of, domain, task, scores.outcome(task).mean, scores.data, code)
    yield _measurement(of, "", SPEED, Estimate(row.whole.tokens_per_second, 0.0), "", code)
    for name, scores in row.whole.probes.items():
        yield _measurement(of, "", name, scores.outcome(name).mean, scores.data, code)


def _of_parent(report: Report, code: str) -> Iterator[Measurement]:
    """What the parent needs for the same text, where it was the reference."""
    if report.against == PARENT:
        for domain, cell in report.rows[PARENT].cells.items():
            found = ratio(np.array(cell.bits), np.array(cell.bytes))
            yield _measurement(PARENT, domain, BITS, found, report.texts[domain].sha256, code)


def _values(cell: Cell) -> dict[str, Estimate]:
    found = {BITS: ratio(np.array(cell.bits), np.array(cell.bytes))}
    if cell.likeness is not None:
        found["kl"] = Estimate(cell.likeness.kl.mean, cell.likeness.kl.stderr)
        found["same_top1"] = cell.likeness.same_top1
        found["lost_mass"] = cell.likeness.lost_mass
    return found


def _measurement(of: str, domain: str, metric: str, found: Estimate, data: str, code: str) -> Measurement:
    return Measurement(
        of=of, domain=domain, metric=metric, value=found.value, stderr=found.stderr, data=data, code=code
    )
