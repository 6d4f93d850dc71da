"""`mom top`: a live table of a running service."""

from typing import Annotated

import typer

from mom.commands.options import Json


def top(
    url: Annotated[str, typer.Option(help="Base URL of the service.")] = "http://127.0.0.1:8000",
    key: Annotated[str | None, typer.Option(help="API key, where needed.", envvar="MOM_KEY")] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two refreshes.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one table and exit.")] = False,
    json: Json = False,
) -> None:
    """Watch a running service: load, speed and failures of its experts."""
    from mom.workflows import top

    top.top(url.rstrip("/"), key, every, once, json)
