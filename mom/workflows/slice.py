"""`mom slice` and `mom list`: ask for a cut, show its plan or its result, and what slices there are."""

from typing import Any

from mom.display import console
from mom.workflows.compare import headline, judge_file, show_verdict, told
from slices import manifest
from slices.cut.manifest_entry import summary
from slices.cut.pipeline import cut, plan_cut
from slices.cut.plan import Plan
from slices.cut.request import SliceRequest
from slices.manifest import BF16, Manifest
from slices.measure.judge import check_when


def slice_model(request: SliceRequest, compare: str = "auto") -> dict[str, Any]:
    """Cut, hold the result against plain quants, and report, as `mom slice --json` prints it."""
    check_when(compare)
    with console.progress_bar() as report:
        made = cut(request, report)
        found = judge_file(request.target, BF16, compare, None, report)
    return {**summary(request, made), "verdict": told(found)}


def dry_run(request: SliceRequest) -> dict[str, Any]:
    """The plan, with the exact bytes of the weight files, and nothing written."""
    with console.progress_bar() as report:
        _, plan, _ = plan_cut(request, report, measure=False)
    return {
        "path": str(request.target),
        "name": request.slice_name,
        "layers": list(plan.layers),
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
    if "verdict" in figures:
        show_verdict(figures["verdict"])


def listing() -> dict[str, Any]:
    """All slices in `$MOM_HOME`, with sizes and headline quality."""
    return {"slices": [_row(str(folder), found) for folder, found in manifest.all_slices()]}


def show_list(figures: dict[str, Any]) -> None:
    """The same as a table."""
    rows = []
    for row in figures["slices"]:
        types = [f"{q['type']} {console.size(q['bytes'])}" for q in row["quantized"]]
        quality = [f"{of} {m['value']:.3f}±{m['stderr']:.3f}" for of, m in row["bits_per_byte"].items()]
        cells = [row["name"], row["domain"], str(len(row["layers"])), f"{row['vocabulary']:,}"]
        rows.append(
            [
                *cells,
                console.size(row["bytes"]),
                ", ".join(types) or "-",
                ", ".join(quality) or "-",
                row["dominated"],
            ]
        )
    columns = ["slice", "domain", "layers", "rows", "bf16", "quantized", "bits per byte", "dominated by"]
    console.print_table("slices", columns, rows)


def _row(folder: str, found: Manifest) -> dict[str, Any]:
    quality = {
        m.of: {"value": m.value, "stderr": m.stderr}
        for m in found.measurements
        if m.domain == found.domain and m.metric == "bits_per_byte"
    }
    quantized = [{"file": q.file, "type": q.type, "bytes": q.bytes} for q in found.quantized]
    return {
        "name": found.name,
        "path": folder,
        "domain": found.domain,
        "layers": found.layers,
        "vocabulary": found.vocabulary,
        "bytes": found.bytes,
        "quantized": quantized,
        "bits_per_byte": quality,
        "dominated": headline(found),
        "verdicts": [told(each) for each in found.verdicts],
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
