"""A report as the JSON object of `mom eval --json`; docs/reference/report.md describes every key."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from slices import manifest
from slices.estimate import Estimate, ratio
from slices.measure.dominated import verdict_sentence
from slices.measure.overlap import Overlap
from slices.measure.paired import Difference
from slices.probes.run import significantly_worse
from slices.report.baseline_comparison import BaselineComparison, compare_to_baseline
from slices.report.controls import ControlComparison
from slices.report.cost import InferenceCost
from slices.report.domain_result import DomainResult, StoredScores
from slices.report.evaluate import EvalReport, ModelResult
from slices.report.long_context_json import long_context_json, positions_json
from slices.report.long_context_result import LongContextReport
from slices.report.own_domain import OwnDomainResult, compare_on_own_domain
from slices.report.parent_quants import ParentQuants
from slices.tasks.lm_eval_harness import HarnessResult

SCHEMA = 5
Json = dict[str, Any]


def as_json(
    report: EvalReport,
    quants: ParentQuants,
    overlaps: Mapping[str, Overlap],
    costs: Mapping[str, InferenceCost],
    harness: Mapping[str, list[HarnessResult]],
    code: str,
    controls: Mapping[str, ControlComparison] | None = None,
    long_context: LongContextReport | None = None,
) -> Json:
    """Everything that was measured.

    Args:
        overlaps: of the held-out text with calibration text, by domain.
        costs, harness: by model, where they were asked for.
        code: the version that measured.
        controls: of the healed slices, by their name.
        long_context: where a model called for it.
    """
    comparison = compare_to_baseline(report)
    own_domain = compare_on_own_domain(report)
    positions = positions_json(long_context)
    return {
        "schema": SCHEMA,
        "code": code,
        "created": manifest.now(),
        "baseline": report.baseline,
        "comparisons": comparison.comparisons,
        "config": _config(report),
        "domains": {domain: _domain(report, domain, overlaps.get(domain)) for domain in report.heldout},
        "slices": {
            name: {
                **_model(name, result, comparison),
                "verdict": _verdict(name, quants),
                "control": controls[name].to_json() if controls and name in controls else None,
                "long_context": positions.get(name),
                "cost": asdict(costs[name]) if name in costs else None,
                "harness": [_harness(each) for each in harness.get(name, [])],
            }
            for name, result in report.models.items()
        },
        "long_context": long_context_json(long_context),
        "parent_quants": {label: _quant(label, quants) for label in quants.bytes},
        "own_domain": {domain: [_own_domain(each) for each in found] for domain, found in own_domain.items()},
    }


def _config(report: EvalReport) -> Json:
    config = report.config
    stride = config.stride_bytes or config.window_bytes
    return {**asdict(config), "tasks": sorted(config.tasks), "stride_bytes": stride}


def _domain(report: EvalReport, domain: str, overlap: Overlap | None) -> Json:
    text = report.heldout[domain]
    return {
        "sha256": text.sha256,
        "documents": text.documents,
        "windows": len(text.windows),
        "bytes": text.nbytes,
        "overlap": None if overlap is None else asdict(overlap),
    }


def _model(name: str, result: ModelResult, comparison: BaselineComparison) -> Json:
    tokens = sum(found.tokens for found in result.domains.values())
    seconds = sum(found.seconds for found in result.domains.values())
    overall, differences = result.overall, comparison.probes.get(name, {})
    return {
        "bytes": result.bytes,
        "domain": result.model.domain,
        "decode_tokens_per_second": overall.decode_tokens_per_second,
        "scored_tokens_per_second": tokens / seconds if seconds else 0.0,
        "notes": overall.notes,
        "domains": {
            domain: _domain_result(name, domain, found, comparison)
            for domain, found in result.domains.items()
        },
        "probes": {
            probe: {**asdict(stored.load(probe).mean), **_paired(stored, differences.get(probe))}
            for probe, stored in overall.probes.items()
        },
        "significantly_worse": significantly_worse(differences),
    }


def _domain_result(name: str, domain: str, found: DomainResult, comparison: BaselineComparison) -> Json:
    result: Json = {
        "bits_per_byte": asdict(ratio(np.array(found.bits), np.array(found.bytes))),
        "vs_baseline": _difference(comparison.bits_per_byte.get((name, domain))),
        "documents": len(found.bits),
        "bytes": int(sum(found.bytes)),
        "tokens": found.tokens,
    }
    if found.divergence is not None:
        result |= found.divergence.to_json()
    for task, stored in found.scores.items():
        difference = comparison.tasks.get((name, domain, task))
        result[task] = {**_accuracy(stored.load(task).mean), **_paired(stored, difference)}
    return result


def _accuracy(mean: Estimate) -> Json:
    return {"accuracy": mean.value, "stderr": mean.stderr}


def _paired(stored: StoredScores, difference: Difference | None) -> Json:
    return {"n": len(stored.scores), "vs_baseline": _difference(difference)}


def _difference(difference: Difference | None) -> Json | None:
    return None if difference is None else asdict(difference)


def _verdict(name: str, quants: ParentQuants) -> Json | None:
    found = quants.verdicts.get(name)
    return None if found is None else {**found.model_dump(mode="json"), "sentence": verdict_sentence(found)}


def _quant(label: str, quants: ParentQuants) -> Json:
    values = quants.bits_per_byte[label]
    domains = {domain: {"bits_per_byte": asdict(value)} for domain, value in values.items()}
    return {"bytes": quants.bytes[label], "domains": domains}


def _own_domain(result: OwnDomainResult) -> Json:
    differences = {other: asdict(each) for other, each in result.differences.items()}
    return {"slice": result.slice, "best": result.best, "differences": differences}


def _harness(result: HarnessResult) -> Json:
    return {**asdict(result), "stderr": None if np.isnan(result.stderr) else result.stderr}
