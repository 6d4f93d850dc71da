"""`mom slice`: cut a domain expert out of a checkpoint."""

from typing import Annotated, Any

import typer

from mom.commands.options import (
    DEFAULT_MODEL,
    Compare,
    Corpus,
    Force,
    Json,
    ModelOption,
    Output,
    emit,
    parse_size,
)
from slices.architecture.attention import Attention, RopeTheta
from slices.cut.request import FfnRank
from slices.errors import BadConfig
from slices.measure.compare_mode import CompareMode


def slice_(
    domain: Annotated[
        str, typer.Option(metavar="NAME", help="A domain of configs/domains, such as biochem.")
    ],
    layers: Annotated[
        str,
        typer.Option(metavar="SPEC", help="all | swa | full | 0-23 | 0-5,11,17 | drop:12,13 | auto | auto:N"),
    ],
    model: ModelOption = DEFAULT_MODEL,
    vocab: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC", help="Vocabulary: all | domain (tokens of its text) | N. [default: all]"
        ),
    ] = None,
    ffn: Annotated[
        str | None, typer.Option(metavar="SPEC", help="FFN neurons per layer: all | N. [default: all]")
    ] = None,
    ffn_rank: Annotated[
        FfnRank, typer.Option(help="Rank neurons by scores on the domain's text, or at random.")
    ] = FfnRank.SCORES,
    corpus: Corpus = None,
    output: Output = None,
    name: Annotated[str | None, typer.Option(help="Name of the slice. [default: the domain's]")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of generated domain text and random ranks.")] = 0,
    repair: Annotated[
        bool, typer.Option("--repair", help="Replace an invalid cut by the nearest valid one.")
    ] = False,
    portable: Annotated[
        bool, typer.Option("--portable", help="Add identity layers, so that stock transformers loads it.")
    ] = False,
    attention: Annotated[
        Attention, typer.Option(help="Keep full attention, or limit it to the sliding window.")
    ] = Attention.KEEP,
    rope_theta: Annotated[
        RopeTheta | None,
        typer.Option(
            help="Rotary theta of full-attention layers made sliding: the sliding layers', or their own, "
            "which only torch runs. [default: local for Gemma 3, global for Gemma 4]"
        ),
    ] = None,
    compare: Compare = CompareMode.AUTO,
    budget: Annotated[
        int | None,
        typer.Option(
            parser=parse_size,
            metavar="SIZE",
            help="Search for the best slice whose GGUF is at most this size: 100MB.",
        ),
    ] = None,
    heal_steps: Annotated[
        int, typer.Option(min=0, help="With --budget: steps of healing before a candidate is measured.")
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its exact size; write nothing.")
    ] = False,
    json: Json = False,
    force: Force = False,
) -> None:
    """Cut a domain expert out of a checkpoint."""
    from mom.workflows import slice
    from slices.cut.request import SliceRequest

    request = SliceRequest(
        domain=domain,
        layers=layers,
        model=model,
        vocab=vocab or "all",
        corpus=tuple(corpus or ()),
        output=output,
        name=name,
        seed=seed,
        force=force,
        ffn=ffn or "all",
        ffn_rank=ffn_rank,
        repair=repair,
        portable=portable,
        attention=attention,
        rope_theta=rope_theta,
    )
    if budget is not None:
        _search(request, budget, vocab, ffn, heal_steps, compare, dry_run, json)
        return
    if heal_steps:
        raise BadConfig(f"--heal-steps {heal_steps}: expected --budget with it; `mom heal` heals a slice")
    figures = slice.dry_run(request) if dry_run else slice.slice_model(request, compare)
    emit(json, figures, lambda: slice.show(figures))


def _search(
    request: Any,
    budget: int,
    vocab: str | None,
    ffn: str | None,
    heal_steps: int,
    compare: CompareMode,
    dry_run: bool,
    json: bool,
) -> None:
    from mom.workflows import search

    options = search.SearchOptions(cut=request, budget=budget, vocab=vocab, ffn=ffn, heal_steps=heal_steps)
    if dry_run:
        planned = search.plan_search(options)
        emit(json, planned, lambda: search.show_plan(planned))
        return
    figures = search.search_slice(options, compare)
    emit(json, figures, lambda: search.show_search(figures))
