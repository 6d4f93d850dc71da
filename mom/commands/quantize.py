"""`mom quantize`: write a slice as a quantized GGUF."""

from pathlib import Path
from typing import Annotated

import typer

from mom.commands.options import Compare, Force, Json, emit
from slices.measure.compare_mode import CompareMode


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
    compare: Compare = CompareMode.AUTO,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the exact size; write nothing.")] = False,
    json: Json = False,
    force: Force = False,
) -> None:
    """Write a slice as a quantized GGUF for llama.cpp."""
    from mom.workflows import quantize, quantize_auto

    kind = type_ or ("Q4_K_M" if max_kl is None and budget is None else "auto")
    wish = quantize.Wish(
        slice_, kind, output, imatrix, tables, max_kl, budget, threads, force, domain, data, limit,
        compare,
    )  # fmt: skip
    if wish.measures:
        figures = quantize_auto.foretell_slice(wish) if dry_run else quantize_auto.climb_slice(wish)
        emit(json, figures, lambda: quantize_auto.show_ladder(figures))
        return
    figures = quantize.predict_slice(wish) if dry_run else quantize.quantize_slice(wish)
    emit(json, figures, lambda: quantize.show_quantized(figures))
