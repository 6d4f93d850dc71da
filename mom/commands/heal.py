"""`mom heal`: distill the parent into a slice."""

from pathlib import Path
from typing import Annotated

import typer

from mom.commands.options import Compare, Corpus, Force, Json, Output, emit


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
    from mom.workflows import heal
    from slices.heal.settings import Healing

    settings = Healing(
        steps, method, rate, batch, accumulate, context, hard, states, alone, rank=rank, seed=seed,
        compiled=compiled,
    )  # fmt: skip
    wish = heal.Wish(
        slice_, settings, minutes, output, tuple(corpus or ()), teacher, save_teacher, top_k, picture, device,
        threads, force, compare,
    )  # fmt: skip
    figures = heal.heal_slice(wish)
    emit(json, figures, lambda: heal.show_healed(figures))
    if figures.get("failed"):
        raise typer.Exit(1)
