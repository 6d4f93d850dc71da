"""`mom inspect`: the architecture and parameters of a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from mom.commands.options import Corpus, Json, emit


def inspect(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A folder, config.json, GGUF file, name or hub id.")
    ],
    domain: Annotated[
        str | None, typer.Option(help="Also score layers and neurons on this domain's text.")
    ] = None,
    corpus: Corpus = None,
    plot: Annotated[Path | None, typer.Option(help="Plot the layer scores: .svg or .png.")] = None,
    json: Json = False,
) -> None:
    """Show a checkpoint's architecture and parameters; with --domain also the scores of its layers."""
    from mom.workflows import inspect, inspect_gguf

    if inspect_gguf.is_gguf(model):
        if domain is not None:
            raise typer.BadParameter("a GGUF file has no layer scores; give its slice", param_hint="--domain")
        header = inspect_gguf.inspect_gguf(Path(model))
        emit(json, header, lambda: inspect_gguf.show_gguf(model, header))
        return
    figures = inspect.inspect(model)
    if domain is None:
        emit(json, figures, lambda: inspect.show(model, figures))
        return
    from mom.workflows import score

    figures["scores"] = score.score(model, domain, tuple(corpus or ()), plot)
    emit(json, figures, lambda: score.show_scores(figures["scores"]))
