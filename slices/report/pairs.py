"""Every model against the reference, by document and item, with p-values corrected for their number."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from slices.measure.paired import Difference, bootstrap, holm, mcnemar
from slices.probes.run import differences
from slices.report.run import Report

Key = TypeVar("Key")


@dataclass(frozen=True)
class Pairs:
    """Differences to the reference by model: in bits a byte by domain, by domain and task, and by probe.

    P-values are corrected by Holm's method, those of bits and of tasks each over all models and domains
    (`compared` of them), those of probes over a model's own.
    """

    bits: Mapping[tuple[str, str], Difference]
    tasks: Mapping[tuple[str, str, str], Difference]
    probes: Mapping[str, Mapping[str, Difference]]
    compared: int


def pair(report: Report) -> Pairs:
    """Compare; nothing where there is no reference."""
    if report.against is None:
        return Pairs({}, {}, {}, 0)
    base = report.rows[report.against]
    others = {name: row for name, row in report.rows.items() if name != report.against}
    bits, tasks = {}, {}
    for name, row in others.items():
        for domain, cell in row.cells.items():
            theirs = base.cells[domain]
            bits[name, domain] = bootstrap(
                np.array(cell.bits), np.array(theirs.bits), np.array(cell.bytes), report.wish.seed
            )
            for task, scores in cell.outcomes.items():
                known = theirs.outcomes.get(task)
                if known is not None and known.data == scores.data:
                    ours, reference = scores.outcome(task).scores, known.outcome(task).scores
                    tasks[name, domain, task] = mcnemar(ours > 0, reference > 0, report.wish.seed)
    probes = {
        name: differences(
            {probe: each.outcome(probe) for probe, each in row.whole.probes.items()},
            {probe: each.outcome(probe) for probe, each in base.whole.probes.items()},
        )
        for name, row in others.items()
    }
    return Pairs(_corrected(bits), _corrected(tasks), probes, len(bits))


def _corrected(found: Mapping[Key, Difference]) -> dict[Key, Difference]:
    corrected = holm([each.p for each in found.values()])
    return {key: replace(each, p=p) for (key, each), p in zip(found.items(), corrected, strict=True)}
