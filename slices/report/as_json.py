"""A report as the JSON object that `mom eval --json` writes; docs/reference/report.md describes every key."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from slices import manifest
from slices.estimate import ratio
from slices.measure.dominated import sentence
from slices.measure.overlap import Overlap
from slices.measure.paired import Difference
from slices.probes.run import significantly_worse
from slices.report.cell import Cell, told
from slices.report.controls import Controls, own_domain
from slices.report.cost import Cost
from slices.report.diagonal import Diagonal, diagonal
from slices.report.pairs import Pairs, pair
from slices.report.run import Report, Row
from slices.tasks.lm_eval_harness import HarnessResult

SCHEMA = 3
Json = dict[str, Any]


def as_json(
    report: Report,
    controls: Controls,
    overlaps: Mapping[str, Overlap],
    costs: Mapping[str, Cost],
    published: Mapping[str, list[HarnessResult]],
    code: str,
) -> Json:
    """Everything that was measured.

    Args:
        overlaps: of the held-out text with calibration text, by domain.
        costs, published: by model, where they were asked for.
        code: the version that measured.
    """
    pairs, wish = pair(report), report.wish
    return {
        "schema": SCHEMA,
        "code": code,
        "made": manifest.now(),
        "against": report.against,
        "comparisons": pairs.compared,
        "settings": {**asdict(wish), "tasks": sorted(wish.tasks), "stride": wish.stride or wish.window},
        "domains": {domain: _text(report, domain, overlaps.get(domain)) for domain in report.texts},
        "slices": {
            name: {
                **_row(name, row, pairs),
                "verdict": _verdict(name, controls),
                "cost": asdict(costs[name]) if name in costs else None,
                "published": [_figure(each) for each in published.get(name, [])],
            }
            for name, row in report.rows.items()
        },
        "controls": {
            label: {
                "bytes": nbytes,
                "domains": {
                    domain: {"bits_per_byte": asdict(found)}
                    for domain, found in controls.bits_per_byte[label].items()
                },
            }
            for label, nbytes in controls.bytes.items()
        },
        "diagonal": {domain: [_diagonal(each) for each in own] for domain, own in diagonal(report).items()},
    }


def _text(report: Report, domain: str, overlap: Overlap | None) -> Json:
    text = report.texts[domain]
    return {
        "sha256": text.sha256,
        "documents": text.documents,
        "windows": len(text.windows),
        "bytes": text.nbytes,
        "overlap": None if overlap is None else asdict(overlap),
    }


def _row(name: str, row: Row, pairs: Pairs) -> Json:
    tokens = sum(cell.tokens for cell in row.cells.values())
    seconds = sum(cell.seconds for cell in row.cells.values())
    probes = pairs.probes.get(name, {})
    return {
        "bytes": row.bytes,
        "domain": own_domain(row),
        "tokens_per_second": row.whole.tokens_per_second,
        "scored_tokens_per_second": tokens / seconds if seconds else 0.0,
        "notes": row.whole.notes,
        "domains": {domain: _cell(name, domain, cell, pairs) for domain, cell in row.cells.items()},
        "probes": {
            probe: _share(scores.outcome(probe).mean, len(scores.scores), probes.get(probe))
            for probe, scores in row.whole.probes.items()
        },
        "worse_on": significantly_worse(probes),
    }


def _cell(name: str, domain: str, cell: Cell, pairs: Pairs) -> Json:
    gap = pairs.bits.get((name, domain))
    found: Json = {
        "bits_per_byte": asdict(ratio(np.array(cell.bits), np.array(cell.bytes))),
        "against": None if gap is None else asdict(gap),
        "documents": len(cell.bits),
        "bytes": int(sum(cell.bytes)),
        "tokens": cell.tokens,
    }
    if cell.likeness is not None:
        found |= told(cell.likeness)
    for task, scores in cell.outcomes.items():
        share = _share(scores.outcome(task).mean, len(scores.scores), pairs.tasks.get((name, domain, task)))
        found[task] = {"accuracy": share.pop("value"), **share}
    return found


def _share(found: Any, count: int, gap: Difference | None) -> Json:
    return {**asdict(found), "n": count, "against": None if gap is None else asdict(gap)}


def _verdict(name: str, controls: Controls) -> Json | None:
    found = controls.verdicts.get(name)
    return None if found is None else {**found.model_dump(mode="json"), "sentence": sentence(found)}


def _diagonal(found: Diagonal) -> Json:
    against = {other: asdict(gap) for other, gap in found.against.items()}
    return {"slice": found.slice, "best": found.best, "against": against}


def _figure(found: HarnessResult) -> Json:
    return {**asdict(found), "stderr": None if np.isnan(found.stderr) else found.stderr}
