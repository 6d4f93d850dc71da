"""`mom inspect`: what a checkpoint is made of."""

from pathlib import Path
from typing import Annotated

import typer

from mom.commands.options import Corpus, Json, emit


def inspect(
    model: Annotated[str, typer.Argument(help="A folder, config.json, name or hub id.")],
    domain: Annotated[str | None, typer.Option(help="Score the parts on this domain's text too.")] = None,
    corpus: Corpus = None,
    plot: Annotated[Path | None, typer.Option(help="Plot the layer scores: .svg or .png.")] = None,
    json: Json = False,
) -> None:
    """Show what a checkpoint is made of, and with --domain what its parts are worth."""
    from mom.workflows import inspect

    figures = inspect.inspect(model)
    if domain is None:
        emit(json, figures, lambda: inspect.show(model, figures))
        return
    from mom.workflows import score

    figures["scores"] = score.score(model, domain, tuple(corpus or ()), plot)
    emit(json, figures, lambda: score.show_scores(figures["scores"]))
