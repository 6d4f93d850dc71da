"""`mom top`: a running service in a table."""

from typing import Annotated

import typer

from mom.commands.options import Json


def top(
    url: Annotated[str, typer.Option(help="Where the service is.")] = "http://127.0.0.1:8000",
    key: Annotated[str | None, typer.Option(help="An API key, where it wants one.", envvar="MOM_KEY")] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one table and leave.")] = False,
    json: Json = False,
) -> None:
    """Watch a running service: its experts, their load, speed and failures."""
    from mom.workflows import top

    top.top(url.rstrip("/"), key, every, once, json)
