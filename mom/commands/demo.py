"""`mom demo`: the whole pipeline on the embedded model."""

from typing import Annotated

import typer


def demo(
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Serve the slices and ask three questions; the service keeps running."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="As --serve, but stop the service afterwards.")
    ] = False,
) -> None:
    """Build and quantize three slices of the embedded Gemma 3 270M."""
    from mom.workflows import demo as demo_
    from mom.workflows import slice

    demo_.build()
    slice.show_list(slice.listing())
    if serve or check:
        demo_.serve_and_ask(check)
