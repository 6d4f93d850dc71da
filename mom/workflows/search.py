"""`mom slice --budget`: run or plan the search, and report its candidates."""

from dataclasses import dataclass
from typing import Any

from mom.display import console
from mom.workflows.compare import judge_file, show_verdict, verdict_json
from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.cut.pipeline import domain_text, plan_cut
from slices.cut.request import SliceRequest
from slices.measure.compare_mode import CompareMode
from slices.model_ref import open_model
from slices.search import candidates
from slices.search.candidates import Structure, ffn_choices, layer_choices, may_fit, vocab_choices
from slices.search.frontier import Candidate, frontier
from slices.search.request import SearchRequest, healing_of
from slices.search.search import SearchResult, search
from slices.search.trial import request_for
from slices.text import domains


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The options of `mom slice --budget`; `vocab` and `ffn` None are searched."""

    cut: SliceRequest
    budget: int
    vocab: str | None
    ffn: str | None
    heal_steps: int = 0


def search_slice(options: SearchOptions, compare: CompareMode) -> dict[str, Any]:
    """Search and write the best; returns what `mom slice --budget --json` prints."""
    cut = options.cut
    with console.progress_bar() as progress:
        text = domain_text(open_model(cut.model), domains.load(cut.domain), cut, progress)
        request = SearchRequest(
            cut=cut,
            text=text,
            budget=options.budget,
            vocab=options.vocab,
            ffn=options.ffn,
            healing=healing_of(options.heal_steps, cut.seed),
        )
        result = search(request, progress)
        verdict = judge_file(result.target, result.gguf.name, compare, None, progress)
    entry = manifest.read(result.target)
    return {
        "path": str(result.target),
        "name": entry.name,
        "layers": entry.layers,
        "vocabulary": entry.vocabulary,
        "parameters": entry.parameters.model_dump(),
        "bytes": entry.bytes,
        "seconds": entry.recipe["seconds"],
        "gguf": str(result.gguf),
        "gguf_bytes": result.gguf.stat().st_size,
        **_candidates(result),
        "heal_steps": options.heal_steps,
        "verdict": verdict_json(verdict),
    }


def plan_search(options: SearchOptions) -> dict[str, Any]:
    """The structures to try, with their bytes in bf16; nothing is measured or written."""
    cut, space = options.cut, candidates.SPACE
    anatomy = read_anatomy(open_model(cut.model).config)
    layers = [each for each in layer_choices(cut.layers, len(anatomy.layers), space) if "auto" not in each]
    planned = []
    for rows in vocab_choices(options.vocab, anatomy.dims.vocab, space):
        for width in ffn_choices(options.ffn, int(anatomy.config["intermediate_size"]), space):
            structure = Structure(layers[0], rows, width)
            plan = plan_cut(request_for(cut, structure, cut.target), measure=False)[1]
            fits = "may fit" if may_fit(plan.nbytes, options.budget) else "over the budget in every type"
            planned.append({"structure": str(structure), "bf16_bytes": plan.nbytes, "verdict": fits})
    return {"budget": options.budget, "heal_steps": options.heal_steps, "planned": planned}


def show_plan(figures: dict[str, Any]) -> None:
    """The structures as a table."""
    rows = [[e["structure"], console.size(e["bf16_bytes"]), e["verdict"]] for e in figures["planned"]]
    title = _title(figures) + ": nothing was written or measured"
    console.print_table(title, ["structure", "in bf16", ""], rows)


def show_search(figures: dict[str, Any]) -> None:
    """Every candidate, largest first, and the slice that was written."""
    rows = [[*_cells(each), _status(each, figures)] for each in figures["candidates"]]
    rows += [[e["label"], console.size(e["bytes"]), "-", "-", "-", e["reason"]] for e in figures["skipped"]]
    columns = ["candidate", "size", "bits per byte", "over the parent", "KL on kept tokens", ""]
    console.print_table(_title(figures), columns, rows)
    console.out.print(
        f"{figures['gguf']}: {figures['chosen']}, {console.size(figures['gguf_bytes'])}",
        soft_wrap=True,
        markup=False,
    )
    show_verdict(figures["verdict"])


def _candidates(result: SearchResult) -> dict[str, Any]:
    measured = sorted(result.candidates, key=lambda each: -each.bytes)
    skipped = sorted(result.skipped, key=lambda each: -each.bytes)
    return {
        "budget": result.budget,
        "chosen": result.chosen.label,
        "candidates": [{"label": each.label, **each.to_json()} for each in measured],
        "skipped": [vars(each) for each in skipped],
        "frontier": [_point(each) for each in frontier(result.candidates)],
    }


def _title(figures: dict[str, Any]) -> str:
    healing = f", {figures['heal_steps']} steps of healing" if figures["heal_steps"] else ""
    return f"a budget of {console.size(figures['budget'])}{healing}"


def _point(each: Candidate) -> dict[str, Any]:
    return {"label": each.label, "bytes": each.bytes, "bits_per_byte": each.bits_per_byte.value}


def _cells(each: dict[str, Any]) -> list[str]:
    bits, over, kl = each["bits_per_byte"], each["bits_over_parent"], each["kl"]
    return [
        each["label"],
        console.size(each["bytes"]),
        f"{bits['value']:.3f} ± {bits['stderr']:.3f}",
        f"{over['value']:+.3f} ± {over['stderr']:.3f}",
        f"{kl['value']:.3f} ± {kl['stderr']:.3f}",
    ]


def _status(each: dict[str, Any], figures: dict[str, Any]) -> str:
    on = {point["label"] for point in figures["frontier"]}
    status = "on the frontier" if each["label"] in on else "dominated"
    if each["label"] == figures["chosen"]:
        status = "chosen"
    return f"{status}; {each['note']}" if each["note"] else status
