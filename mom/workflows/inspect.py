"""`mom inspect`: a checkpoint's architecture and parameters, and the FFN-ratio predictor's advice."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mom.display import console
from slices import manifest
from slices.architecture.anatomy import Anatomy, count_parameters, match_tensors, read_anatomy
from slices.architecture.kv_cache import kv_cache_bytes
from slices.architecture.layer_spec import format_layers
from slices.manifest import Parameters
from slices.measure.predictor import (
    HIGH,
    LOW,
    PASSES,
    Advice,
    Ratio,
    advise,
    agreed,
    sentence,
    verdict_against,
)
from slices.measure.track_record import Outcome, read_ladder, summary, track_record
from slices.model_ref import open_model


def inspect(model: str) -> dict[str, Any]:
    """The figures of MODEL under the keys that DESIGN fixes; a lone config.json is enough."""
    checkpoint = open_model(model)
    anatomy = read_anatomy(checkpoint.config)
    present = match_tensors(checkpoint, anatomy)[0] if checkpoint.entries else None
    parameters, dead = count_parameters(anatomy, present)
    stored = sum(entry.nbytes for entry in present.values()) if present else 2 * parameters.total
    return {
        "model_type": anatomy.model_type,
        "layers": len(anatomy.layers),
        "sliding_layers": anatomy.sliding,
        "full_layers": anatomy.full,
        "windowed_layers": anatomy.windowed,
        "kv_shared_layers": [layer.index for layer in anatomy.layers if layer.shared],
        "kv_donors": anatomy.donors,
        "ffn_ratio": [round(layer.ffn / anatomy.dims.hidden, 4) for layer in anatomy.layers],
        "parameters": _parameters(parameters, dead),
        "bytes": stored,
        "head_dim": {kind: _head(anatomy, kind) for kind in ("sliding_attention", "full_attention")},
        "sliding_window": anatomy.dims.sliding_window,
        "kv_cache": asdict(kv_cache_bytes(anatomy)),
        "hidden_size": anatomy.dims.hidden,
        "vocabulary": anatomy.dims.vocab,
        "weights_read": present is not None,
        "advice": advice_figures(advise(anatomy), track_record(), _ladders(checkpoint.folder)),
    }


def advice_figures(
    advice: Advice, record: tuple[Outcome, ...], ladders: Mapping[str, Mapping[str, Ratio]]
) -> dict[str, Any]:
    """The FFN-ratio predictor's advice as JSON, with its thresholds and its track record.

    Args:
        ladders: perplexity relative to bf16 by type, as measured on this model, by what it was measured for.
    """
    return {
        "sentence": sentence(advice),
        "verdict": advice.verdict,
        "confidence": advice.confidence,
        "type": advice.type,
        "fallback": advice.fallback,
        "groups": [vars(group) | {"share": round(group.share, 4)} for group in advice.groups],
        "terms": {"depth": advice.depth, "swa_share": round(advice.swa_share, 4)},  # no thresholds known
        "thresholds": {"danger_from": LOW, "danger_to": HIGH, "passes": PASSES},
        "measured": {
            name: {"agreed": agreed(advice, ladder), "sentence": verdict_against(advice, ladder)}
            for name, ladder in ladders.items()
        },
        "record": summary(record),
        "track_record": [_outcome(each) for each in record],
    }


def show(model: str, figures: dict[str, Any]) -> None:
    """The same as tables."""
    parts = figures["parameters"]
    rows = [
        [name.replace("_", " "), console.number(parts[name]), f"{100 * parts[name] / parts['total']:.1f} %"]
        for name in ("decoder", "per_layer_embedding", "embedding", "total")
    ]
    if parts["dead_kv"]:
        share = f"{100 * parts['dead_kv'] / parts['total']:.1f} %"
        rows.append(["of it dead K/V", console.number(parts["dead_kv"]), share])
    source = "from the headers" if figures["weights_read"] else "computed from the config, as bf16"
    made_of = f"{figures['model_type']}, {figures['layers']} layers, {console.size(figures['bytes'])}"
    title = f"{model}: {made_of} ({source})"
    console.print_table(title, ["part", "parameters", "share"], rows)
    console.print_table("layers", ["group", "count", "which"], _groups(figures))
    show_advice(figures["advice"])


def show_advice(figures: dict[str, Any]) -> None:
    """The FFN-ratio predictor's advice as a table."""
    bounds, terms = figures["thresholds"], figures["terms"]
    rows = [
        [
            f"FFN ratio {group['ratio']:.3g} on {group['layers']} layers",
            f"{group['verdict']} ({group['confidence']:.2f})",
        ]
        for group in figures["groups"]
    ]
    rows += [
        [f"depth {terms['depth']}, {100 * terms['swa_share']:.0f} % sliding", "no threshold known"],
        ["advice", f"{figures['verdict']}: {figures['type']}, else {figures['fallback']}"],
        *([name, measured["sentence"]] for name, measured in figures["measured"].items()),
        ["elsewhere", figures["record"]],
    ]
    zone = f"danger from {bounds['danger_from']:g} to {bounds['danger_to']:g}"
    console.print_table(f"the published FFN-ratio predictor ({zone}): measure it", ["term", "verdict"], rows)


def _ladders(folder: Path) -> dict[str, dict[str, Ratio]]:
    """The ladders that slice.json tells of, by the file that each chose; none for a plain checkpoint."""
    if not (folder / manifest.FILE).is_file():
        return {}
    return {
        file.file: read_ladder(trials, str(folder / manifest.FILE))
        for file in manifest.read(folder).quantized
        if isinstance(trials := (file.model_extra or {}).get("ladder"), list) and trials
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    case = outcome.case
    ratios = {kind: each.model_dump() for kind, each in case.perplexity_ratio.items()}
    return {
        "model": case.model,
        "verdict": outcome.advice.verdict,
        "right": outcome.right,
        "type_passed": outcome.type_passed,
        "perplexity_ratio": ratios,
        "source": case.source,
    }


def _groups(figures: dict[str, Any]) -> list[list[str]]:
    head = figures["head_dim"]
    donors = ", ".join(f"{layer} ({kind.split('_')[0]})" for kind, layer in figures["kv_donors"].items())
    ratios = sorted(set(figures["ffn_ratio"]))
    rows = [
        [
            f"sliding window of {figures['sliding_window']}, head {head['sliding_attention'] or '-'}",
            *_list(figures["sliding_layers"]),
        ],
        [f"full attention, head {head['full_attention'] or '-'}", *_list(figures["full_layers"])],
        *([["of it windowed", *_list(windowed)]] if (windowed := figures["windowed_layers"]) else []),
        ["K/V shared", *_list(figures["kv_shared_layers"])],
        ["K/V donors", str(len(figures["kv_donors"])), donors or "none"],
    ]
    for ratio in ratios:
        rows.append(
            [f"FFN ratio {ratio:g}", *_list([i for i, r in enumerate(figures["ffn_ratio"]) if r == ratio])]
        )
    return rows


def _parameters(parameters: Parameters, dead: int) -> dict[str, int]:
    return {
        "decoder": parameters.decoder,
        "per_layer_embedding": parameters.per_layer_embedding,
        "embedding": parameters.embedding,
        "total": parameters.total,
        "dead_kv": dead,
        "live": parameters.total - dead,
    }


def _head(anatomy: Anatomy, kind: str) -> int | None:
    return next((layer.head_dim for layer in anatomy.layers if layer.type == kind), None)


def _list(indices: list[int]) -> list[str]:
    """How many, and which as ranges: 0-4, 6-10."""
    return [str(len(indices)), format_layers(indices).replace(",", ", ") or "none"]
