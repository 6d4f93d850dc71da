"""`mom slice --budget`: what is tried, what was measured, what was chosen."""

from typing import Any

from mom.display import console
from mom.workflows.compare import judge_file, show_verdict, verdict_json
from mom.workflows.quantize_auto import parse_size
from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.cut.pipeline import domain_text, plan_cut
from slices.cut.request import SliceRequest
from slices.measure.compare_mode import CompareMode
from slices.model_ref import open_model
from slices.search.candidates import Structure, layer_choices, may_fit, row_choices, width_choices
from slices.search.frontier import Tried, frontier
from slices.search.search import Found, search
from slices.search.trial import request_for
from slices.text import domains


def search_slice(
    request: SliceRequest, budget: str, vocab: str | None, ffn: str | None, compare: CompareMode
) -> dict[str, Any]:
    """Search, write the best, and report as `mom slice --budget --json` prints it."""
    most = parse_size(budget)
    with console.progress_bar() as report:
        checkpoint, domain = open_model(request.model), domains.load(request.domain)
        text = domain_text(checkpoint, domain, request, report)
        found = search(request, text, most, vocab, ffn, progress=report)
        verdict = judge_file(found.target, found.gguf.name, compare, None, report)
    made = manifest.read(found.target)
    return {
        "path": str(found.target),
        "name": made.name,
        "layers": made.layers,
        "vocabulary": made.vocabulary,
        "parameters": made.parameters.model_dump(),
        "bytes": made.bytes,
        "seconds": made.recipe["seconds"],
        "gguf": str(found.gguf),
        "gguf_bytes": found.gguf.stat().st_size,
        **_candidates(found),
        "verdict": verdict_json(verdict),
    }


def plan_search(request: SliceRequest, budget: str, vocab: str | None, ffn: str | None) -> dict[str, Any]:
    """The structures that would be tried, and their bytes in bf16; nothing is measured or written."""
    most = parse_size(budget)
    anatomy = read_anatomy(open_model(request.model).config)
    layers = [each for each in layer_choices(request.layers, len(anatomy.layers)) if "auto" not in each]
    planned = []
    for rows in row_choices(vocab, anatomy.dims.vocab):
        for width in width_choices(ffn, int(anatomy.config["intermediate_size"])):
            structure = Structure(layers[0], rows, width)
            wanted = request_for(request, structure, request.target)
            plan = plan_cut(wanted, lambda stage, done, total: None, measure=False)[1]
            fits = "may fit" if may_fit(plan.nbytes, most) else "over the budget in every type"
            planned.append({"structure": str(structure), "bf16_bytes": plan.nbytes, "verdict": fits})
    return {"budget": most, "planned": planned}


def show_plan(figures: dict[str, Any]) -> None:
    """The structures as a table."""
    rows = [[e["structure"], console.size(e["bf16_bytes"]), e["verdict"]] for e in figures["planned"]]
    title = f"a budget of {console.size(figures['budget'])}: nothing was written or measured"
    console.print_table(title, ["structure", "in bf16", ""], rows)


def show_search(figures: dict[str, Any]) -> None:
    """Every candidate, the largest first, and the slice that was written."""
    rows = [[*_cells(each), _said(each, figures)] for each in figures["candidates"]]
    rows += [[e["label"], console.size(e["bytes"]), "-", "-", "-", e["reason"]] for e in figures["skipped"]]
    columns = ["candidate", "size", "bits per byte", "against the parent", "KL on kept", ""]
    console.print_table(f"a budget of {console.size(figures['budget'])}", columns, rows)
    console.out.print(
        f"{figures['gguf']}: {figures['chosen']}, {console.size(figures['gguf_bytes'])}",
        soft_wrap=True,
        markup=False,
    )
    show_verdict(figures["verdict"])


def _candidates(found: Found) -> dict[str, Any]:
    tried = sorted(found.tried, key=lambda each: -each.bytes)
    skipped = sorted(found.skipped, key=lambda each: -each.bytes)
    return {
        "budget": found.budget,
        "chosen": found.chosen.label,
        "candidates": [{"label": each.label, **each.to_json()} for each in tried],
        "skipped": [vars(each) for each in skipped],
        "frontier": [_point(each) for each in frontier(found.tried)],
    }


def _point(each: Tried) -> dict[str, Any]:
    return {"label": each.label, "bytes": each.bytes, "bits_per_byte": each.bits_per_byte.value}


def _cells(each: dict[str, Any]) -> list[str]:
    bits, more, kl = each["bits_per_byte"], each["more"], each["kl"]
    return [
        each["label"],
        console.size(each["bytes"]),
        f"{bits['value']:.3f} ± {bits['stderr']:.3f}",
        f"{more['value']:+.3f} ± {more['stderr']:.3f}",
        f"{kl['value']:.3f} ± {kl['stderr']:.3f}",
    ]


def _said(each: dict[str, Any], figures: dict[str, Any]) -> str:
    if each["label"] == figures["chosen"]:
        return "kept"
    on = {point["label"] for point in figures["frontier"]}
    return "on the frontier" if each["label"] in on else "beaten"
