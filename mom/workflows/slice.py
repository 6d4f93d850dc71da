"""`mom slice` and `mom list`: run a cut, show its plan or result; list the slices."""

from dataclasses import asdict
from typing import Any

from mom.display import console
from mom.workflows.compare import dominated_by, judge_file, show_verdict, verdict_json
from mom.workflows.layer_alternatives import layer_alternatives, show_layer_alternatives
from slices import manifest
from slices.architecture.layer_spec import format_layers
from slices.cut.manifest_entry import summary
from slices.cut.pipeline import cut, plan_cut
from slices.cut.plan import Plan
from slices.cut.request import SliceRequest
from slices.manifest import BF16, BITS, Manifest
from slices.measure.compare_mode import CompareMode


def slice_model(request: SliceRequest, compare: CompareMode = CompareMode.AUTO) -> dict[str, Any]:
    """Cut, hold the result against plain quants, and report, as `mom slice --json` prints it."""
    with console.progress_bar() as report:
        made = cut(request, report)
        found = judge_file(request.target, BF16, compare, None, report)
        alternatives = layer_alternatives(request, compare, report)
    return {**summary(request, made), "alternatives": alternatives, "verdict": verdict_json(found)}


def dry_run(request: SliceRequest) -> dict[str, Any]:
    """The plan, with the exact bytes of the weight files, and nothing written."""
    with console.progress_bar() as report:
        _, plan, _ = plan_cut(request, report, measure=False)
    return {
        "path": str(request.target),
        "name": request.slice_name,
        "layers": list(plan.layers),
        "attention": str(plan.attention),
        "rope_theta": plan.selection.theta,
        "windowed_layers": plan.windowed_layers,
        "kv_cache": asdict(plan.kv_cache),
        "identity_layers": plan.identity_layers,
        "repair": None if plan.selection.repair is None else plan.selection.repair.to_json(),
        "vocabulary": plan.vocabulary,
        "parameters": plan.parameters.model_dump(),
        "bytes": plan.nbytes,
        "seconds": 0.0,
        "notes": list(plan.notes),
        "files": {shard.file: shard.nbytes for shard in plan.layout.shards},
        "parts": _parts(plan),
    }


def show(figures: dict[str, Any]) -> None:
    """A finished or planned slice as a table."""
    parts = figures["parameters"]
    rows = [
        ["layers kept", f"{len(figures['layers'])}: {', '.join(map(str, figures['layers']))}"],
        *_attention_rows(figures),
        ["vocabulary rows", f"{figures['vocabulary']:,}"],
        *([name.replace("_", " "), console.number(count)] for name, count in parts.items()),
        ["weights", f"{figures['bytes']:,} bytes ({console.size(figures['bytes'])})"],
    ]
    console.print_table(f"{figures['name']} -> {figures['path']}", ["", "kept"], rows)
    if "parts" in figures:
        tensors = [[part["tensor"], f"{part['bytes']:,}"] for part in figures["parts"]]
        console.print_table("planned, nothing written", ["tensors", "bytes"], tensors)
    for note in figures["notes"]:
        console.warn(f"note: {note}")
    if figures.get("alternatives"):
        show_layer_alternatives(figures["alternatives"])
    if "verdict" in figures:
        show_verdict(figures["verdict"])


def _attention_rows(figures: dict[str, Any]) -> list[list[str]]:
    """The layers that were limited to the sliding window, and the K/V cache of a token."""
    windowed, kv_cache = figures["windowed_layers"], figures["kv_cache"]
    inside, beyond = kv_cache["per_token"], kv_cache["beyond_window"]
    rows = [["K/V cache", f"{inside:,} bytes a token, {beyond:,} beyond the window"]]
    if figures["attention"] == "sliding":
        listed = f"{format_layers(windowed)}, {figures['rope_theta']} rotary theta" if windowed else "none"
        rows.insert(0, ["full attention made sliding", listed])
    return rows


def listing() -> dict[str, Any]:
    """All slices in `$MOM_HOME`, each with its files, their sizes and their measured quality."""
    return {"slices": [_slice_row(str(folder), found) for folder, found in manifest.all_slices()]}


def show_list(figures: dict[str, Any]) -> None:
    """The same as a table, one row per file."""
    columns = ["slice", "domain", "layers", "rows", "file", "size", "bits per byte", "dominated by"]
    rows = [_cells(row, file) for row in figures["slices"] for file in row["files"]]
    console.print_table("slices", columns, rows)


def _cells(row: dict[str, Any], file: dict[str, Any]) -> list[str]:
    bits = file["bits_per_byte"]
    return [
        row["name"],
        row["domain"],
        str(len(row["layers"])),
        f"{row['vocabulary']:,}",
        file["type"],
        console.size(file["bytes"]),
        f"{bits['value']:.3f}±{bits['stderr']:.3f}" if bits else "-",
        file["dominated_by"],
    ]


def _slice_row(folder: str, found: Manifest) -> dict[str, Any]:
    gguf = [_file_row(found, q.file, q.type, q.bytes) for q in found.quantized]
    return {
        "name": found.name,
        "path": folder,
        "domain": found.domain,
        "layers": found.layers,
        "vocabulary": found.vocabulary,
        "bytes": found.bytes,
        "files": [_file_row(found, BF16, "BF16", found.bytes), *gguf],
    }


def _file_row(found: Manifest, file: str, type: str, nbytes: int) -> dict[str, Any]:
    """The checkpoint itself (`file` is "bf16") or one of its GGUF files, with its latest measurements."""
    bits = [
        {"value": m.value, "stderr": m.stderr}
        for m in found.measurements
        if (m.variant, m.domain, m.metric) == (file, found.domain, BITS)
    ]
    verdicts = [each for each in found.verdicts if (each.variant, each.domain) == (file, found.domain)]
    verdict = verdicts[-1] if verdicts else None
    return {
        "file": file,
        "type": type,
        "bytes": nbytes,
        "bits_per_byte": bits[-1] if bits else None,
        "dominated_by": dominated_by(verdict),
        "verdict": None if verdict is None else verdict_json(verdict),
    }


def _parts(plan: Plan) -> list[dict[str, Any]]:
    """Bytes by kind of tensor, the largest first."""
    kinds: dict[str, int] = {}
    for tensor in plan.tensors:
        kind = ".".join(part for part in tensor.slot.name.split(".") if not part.isdigit())
        kinds[kind] = kinds.get(kind, 0) + tensor.slot.nbytes
    return [
        {"tensor": kind, "bytes": count} for kind, count in sorted(kinds.items(), key=lambda item: -item[1])
    ]
