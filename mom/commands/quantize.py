"""`mom quantize`: write a slice as a quantized GGUF."""

from pathlib import Path
from typing import Annotated

import typer

from mom.commands.options import Compare, Force, Json, emit, parse_size
from mom.commands.quant_options import EmbeddingTypeOption, ImatrixOption, TypeOption
from slices.errors import BadConfig
from slices.measure.compare_mode import CompareMode


def quantize(
    slice_: Annotated[
        str, typer.Argument(metavar="SLICE", help="A slice's folder or name, or a checkpoint.")
    ],
    type_: Annotated[
        TypeOption | None,
        typer.Option("--type", help="llama.cpp's mix; default what it was healed for, else Q4_K_M; auto."),
    ] = None,
    imatrix: Annotated[
        ImatrixOption | None,
        typer.Option(help="Importance matrix of the domain's text; default none, unless the type needs it."),
    ] = None,
    embedding_type: Annotated[
        EmbeddingTypeOption | None,
        typer.Option(help="Type of the embeddings; llama.cpp: its own choice."),
    ] = None,
    pad_rows: Annotated[
        bool,
        typer.Option(
            "--pad-rows", help="Pad rows to a multiple of 256 weights, so that --type fits all of them."
        ),
    ] = False,
    max_kl: Annotated[
        float | None,
        typer.Option(help="Goal: the smallest type of at most this mean KL to the bf16 slice, in nats."),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            parser=parse_size,
            metavar="SIZE",
            help="Goal: at most this size, as in 100MB; alone, the lowest KL in it.",
        ),
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="To measure on; default the slice's own, by its own text.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A folder with corpora/<domain>/{calibration,heldout}.jsonl.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(min=1, help="Bytes of text to measure on; default 24,000.")
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

    options = quantize.QuantizeOptions(
        slice=slice_,
        type=type_
        or (quantize.default_type(slice_) if max_kl is None and budget is None else TypeOption.AUTO),
        output=output,
        imatrix=imatrix,
        embedding_type=embedding_type,
        max_kl=max_kl,
        budget=budget,
        threads=threads,
        force=force,
        domain=domain,
        data=data,
        max_bytes=max_bytes,
        compare=compare,
        pad_rows=pad_rows,
    )
    if options.has_goal and pad_rows:
        raise BadConfig("--pad-rows: expected a --type, not one that is chosen by measurement")
    if options.has_goal:
        figures = quantize_auto.predict_ladder(options) if dry_run else quantize_auto.climb_ladder(options)
        emit(json, figures, lambda: quantize_auto.show_ladder(figures))
        return
    figures = quantize.predict_slice(options) if dry_run else quantize.quantize_slice(options)
    emit(json, figures, lambda: quantize.show_quantized(figures))
