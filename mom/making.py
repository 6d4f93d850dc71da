"""The commands that make an expert: slice, heal, quantize. Every heavy import is inside the command."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mom.options import DEFAULT_MODEL, Compare, Corpus, Force, Json, ModelOption, Output, emit


def slice_(
    domain: Annotated[str, typer.Option(help="A domain of configs/domains, such as biochem.")],
    layers: Annotated[
        str, typer.Option(help="all | swa | full | 0-23 | 0-5,11,17 | drop:12,13 | auto | auto:N")
    ],
    model: ModelOption = DEFAULT_MODEL,
    vocab: Annotated[
        str | None, typer.Option(help="all (default) | domain (rows its text uses) | N rows")
    ] = None,
    ffn: Annotated[str | None, typer.Option(help="all (default) | N neurons a layer")] = None,
    ffn_rank: Annotated[str, typer.Option(help="scores (of the domain's text) | random")] = "scores",
    corpus: Corpus = None,
    output: Output = None,
    name: Annotated[str | None, typer.Option(help="The slice's name; default the domain's.")] = None,
    seed: Annotated[int, typer.Option(help="For text the parent writes itself, and random ranks.")] = 0,
    repair: Annotated[bool, typer.Option("--repair", help="Take the nearest legal cut.")] = False,
    portable: Annotated[
        bool, typer.Option("--portable", help="Add spacers, so that stock transformers loads it.")
    ] = False,
    compare: Compare = "auto",
    budget: Annotated[
        str | None, typer.Option(help="Search for the best slice whose GGUF takes at most this, as in 100MB.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its exact size; write nothing.")
    ] = False,
    json: Json = False,
    force: Force = False,
) -> None:
    """Cut a domain expert out of a checkpoint."""
    from mom import slicing
    from slices.request import Request

    request = Request(
        domain, layers, model, vocab or "all", tuple(corpus or ()), output, name, seed, force, ffn or "all",
        ffn_rank, repair, portable,
    )  # fmt: skip
    if budget is not None:
        _search(request, budget, vocab, ffn, compare, dry_run, json)
        return
    figures = slicing.dry_run(request) if dry_run else slicing.slice_model(request, compare)
    emit(json, figures, lambda: slicing.show(figures))


def _search(
    request: Any, budget: str, vocab: str | None, ffn: str | None, compare: str, dry_run: bool, json: bool
) -> None:
    from mom import searching

    if dry_run:
        planned = searching.plan_search(request, budget, vocab, ffn)
        emit(json, planned, lambda: searching.show_plan(planned))
        return
    figures = searching.search_slice(request, budget, vocab, ffn, compare)
    emit(json, figures, lambda: searching.show_search(figures))


def heal(
    slice_: Annotated[str, typer.Argument(metavar="SLICE", help="A slice's folder or name.")],
    steps: Annotated[int, typer.Option(help="Corrections to make.")] = 500,
    minutes: Annotated[float | None, typer.Option(help="As many steps as fit, in place of --steps.")] = None,
    method: Annotated[str, typer.Option(help="norms | lora | full")] = "full",
    rate: Annotated[
        float | None, typer.Option(help="Highest learning rate; default by its KL and the rows in a step.")
    ] = None,
    hard: Annotated[
        float | None, typer.Option(help="Share of the target that is the text itself; default by its KL.")
    ] = None,
    states: Annotated[
        float | None, typer.Option(help="Pull of the parent's hidden states; default by its KL.")
    ] = None,
    alone: Annotated[
        float,
        typer.Option(help="Share of the steps, the last, without the parent: faster, but less like it."),
    ] = 0.0,
    batch: Annotated[int, typer.Option(help="Rows read at once.")] = 4,
    accumulate: Annotated[int, typer.Option(help="Batches to a step.")] = 1,
    context: Annotated[int, typer.Option(help="Tokens in a row.")] = 512,
    rank: Annotated[int, typer.Option(help="Of --method lora.")] = 16,
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Default: where the run is long.")
    ] = None,
    corpus: Corpus = None,
    teacher: Annotated[Path | None, typer.Option(help="A saved teacher, in place of the parent.")] = None,
    save_teacher: Annotated[
        Path | None, typer.Option(help="Write what the parent expects to this file; heal nothing.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Tokens a position that --save-teacher keeps.")] = 64,
    picture: Annotated[Path | None, typer.Option(help="Draw the held-out curve: .svg or .png.")] = None,
    output: Output = None,
    device: Annotated[str, typer.Option(help="auto | cpu | cuda")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; default all cores.")] = None,
    seed: Annotated[int, typer.Option(help="Of the order of the text.")] = 0,
    compare: Compare = "auto",
    json: Json = False,
    force: Force = False,
) -> None:
    """Teach a slice what its parent says on the domain's text; a killed run goes on where it was."""
    from mom import healing
    from slices.heal.settings import Healing

    settings = Healing(
        steps, method, rate, batch, accumulate, context, hard, states, alone, rank=rank, seed=seed,
        compiled=compiled,
    )  # fmt: skip
    wish = healing.Wish(
        slice_, settings, minutes, output, tuple(corpus or ()), teacher, save_teacher, top_k, picture, device,
        threads, force, compare,
    )  # fmt: skip
    figures = healing.heal_slice(wish)
    emit(json, figures, lambda: healing.show_healed(figures))
    if figures.get("failed"):
        raise typer.Exit(1)


def quantize(
    slice_: Annotated[
        str, typer.Argument(metavar="SLICE", help="A slice's folder or name, or a checkpoint.")
    ],
    type_: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="IQ2_M | Q2_K | Q3_K_S | Q3_K_M | IQ4_XS | Q4_K_M | Q5_K_M | Q6_K | Q8_0 | BF16 | auto; "
            "default Q4_K_M, with a goal auto.",
        ),
    ] = None,
    imatrix: Annotated[
        str | None,
        typer.Option(help="domain (measured on its text) | none; default none, unless the type needs one"),
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option(help="Type of the vocabulary tables: Q2_K ... Q8_0, BF16 | llama.cpp (its own choice)"),
    ] = None,
    max_kl: Annotated[
        float | None,
        typer.Option(help="Goal: the smallest type of at most this mean KL to the bf16 slice, in nats."),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Goal: at most this size, as in 100MB; alone, the lowest KL in it.")
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="To measure on; default the slice's own, by its held-out text.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A folder with corpora/<domain>/heldout.jsonl.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Bytes of text to measure on; default 12,000.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: beside the slice.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; default all cores.")] = None,
    compare: Compare = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the exact size; write nothing.")] = False,
    json: Json = False,
    force: Force = False,
) -> None:
    """Write a slice as a quantized GGUF for llama.cpp."""
    from mom import laddering, quantizing

    kind = type_ or ("Q4_K_M" if max_kl is None and budget is None else "auto")
    wish = quantizing.Wish(
        slice_, kind, output, imatrix, tables, max_kl, budget, threads, force, domain, data, limit,
        compare,
    )  # fmt: skip
    if wish.measures:
        figures = laddering.foretell_slice(wish) if dry_run else laddering.climb_slice(wish)
        emit(json, figures, lambda: laddering.show_ladder(figures))
        return
    figures = quantizing.predict_slice(wish) if dry_run else quantizing.quantize_slice(wish)
    emit(json, figures, lambda: quantizing.show_quantized(figures))
