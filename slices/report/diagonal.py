"""Is every slice the best on its own domain? Each against all others there, document by document."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from slices.measure.paired import Difference, bootstrap, holm
from slices.report.controls import own_domain
from slices.report.run import Report

SURE = 0.05


@dataclass(frozen=True)
class Diagonal:
    """A slice on its own domain less each slice of another one, in bits a byte; p corrected by Holm."""

    slice: str
    against: Mapping[str, Difference]

    @property
    def best(self) -> bool:
        """Whether it surely needs fewer bits than each of them."""
        return bool(self.against) and all(each.p < SURE and each.value < 0 for each in self.against.values())


def diagonal(report: Report) -> dict[str, list[Diagonal]]:
    """By domain, one for each file of its slices; models that are no slices stand aside."""
    owners = {name: own_domain(row) for name, row in report.rows.items()}
    found: dict[str, list[Diagonal]] = {}
    for name, domain in owners.items():
        if domain in report.texts and domain is not None and name != report.against:
            others = [other for other, theirs in owners.items() if theirs not in (None, domain)]
            found.setdefault(domain, []).append(Diagonal(name, _against(report, name, domain, others)))
    return found


def _against(report: Report, name: str, domain: str, others: list[str]) -> dict[str, Difference]:
    cells = {each: report.rows[each].cells[domain] for each in (name, *others)}
    ours = cells[name]
    gaps = [
        bootstrap(np.array(ours.bits), np.array(cells[other].bits), np.array(ours.bytes), report.wish.seed)
        for other in others
    ]
    corrected = holm([each.p for each in gaps])
    return {other: replace(gap, p=p) for other, gap, p in zip(others, gaps, corrected, strict=True)}
