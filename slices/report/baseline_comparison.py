"""Every model minus the baseline, paired by document and item, with p-values corrected by Holm's method."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from slices.measure.paired import Difference, corrected, mcnemar, paired_difference
from slices.probes.run import differences
from slices.report.evaluate import EvalReport, ModelResult


@dataclass(frozen=True)
class BaselineComparison:
    """Differences to the baseline.

    `bits_per_byte` by model and domain, `tasks` by model, domain and task, `probes` by model and probe.
    P-values are corrected by Holm's method: those of bits per byte and those of tasks over all models and
    domains (`comparisons` is the number of the former that are known), those of probes over one model's.
    """

    bits_per_byte: Mapping[tuple[str, str], Difference]
    tasks: Mapping[tuple[str, str, str], Difference]
    probes: Mapping[str, Mapping[str, Difference]]
    comparisons: int


def compare_to_baseline(report: EvalReport) -> BaselineComparison:
    """All differences to the baseline; empty where there is none."""
    if report.baseline is None:
        return BaselineComparison(bits_per_byte={}, tasks={}, probes={}, comparisons=0)
    baseline = report.models[report.baseline]
    others = {name: result for name, result in report.models.items() if name != report.baseline}
    bits, tasks = {}, {}
    for name, result in others.items():
        for domain, found in result.domains.items():
            theirs, seed = baseline.domains[domain], report.config.seed
            bits[name, domain] = paired_difference(
                np.array(found.bits), np.array(theirs.bits), np.array(found.bytes), seed
            )
            for task, stored in found.scores.items():
                known = theirs.scores.get(task)
                if known is not None and known.data_sha256 == stored.data_sha256:
                    right, theirs_right = stored.load(task).scores > 0, known.load(task).scores > 0
                    tasks[name, domain, task] = mcnemar(right, theirs_right, seed)
    return BaselineComparison(
        bits_per_byte=corrected(bits),
        tasks=corrected(tasks),
        probes={name: _probe_differences(result, baseline) for name, result in others.items()},
        comparisons=sum(each.p is not None for each in bits.values()),
    )


def _probe_differences(result: ModelResult, baseline: ModelResult) -> dict[str, Difference]:
    ours, theirs = (
        {probe: stored.load(probe) for probe, stored in each.overall.probes.items()}
        for each in (result, baseline)
    )
    return differences(ours, theirs)
