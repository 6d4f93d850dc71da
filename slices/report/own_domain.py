"""Whether each slice is the best on its own domain: compared with all other slices there, by document."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from slices.measure.paired import Difference, corrected, paired_difference
from slices.report.evaluate import EvalReport


@dataclass(frozen=True)
class OwnDomainResult:
    """Bits per byte of a slice on its own domain minus those of each slice of another domain there.

    P-values are corrected by Holm's method.
    """

    slice: str
    differences: Mapping[str, Difference]

    @property
    def best(self) -> bool:
        """Whether it needs significantly fewer bits than each of them."""
        lower = [each.significant and each.value < 0 for each in self.differences.values()]
        return bool(lower) and all(lower)


def compare_on_own_domain(report: EvalReport) -> dict[str, list[OwnDomainResult]]:
    """By domain, one result for each file of its slices; models that are no slices are left out."""
    domains = {name: result.model.domain for name, result in report.models.items()}
    results: dict[str, list[OwnDomainResult]] = {}
    for name, domain in domains.items():
        if domain is not None and domain in report.heldout and name != report.baseline:
            others = [other for other, theirs in domains.items() if theirs not in (None, domain)]
            result = OwnDomainResult(name, _differences(report, name, domain, others))
            results.setdefault(domain, []).append(result)
    return results


def _differences(report: EvalReport, name: str, domain: str, others: list[str]) -> dict[str, Difference]:
    results = {each: report.models[each].domains[domain] for each in (name, *others)}
    own, seed = results[name], report.config.seed
    bits, sizes = np.array(own.bits), np.array(own.bytes)
    return corrected(
        {other: paired_difference(bits, np.array(results[other].bits), sizes, seed) for other in others}
    )
