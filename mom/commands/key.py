"""`mom key new|list|drop`: who may ask a service that others can reach."""

from pathlib import Path
from typing import Annotated

import typer

from mom.commands.options import Json, emit
from router.api.middleware import api_keys

app = typer.Typer(
    no_args_is_help=True, help="Who may ask a service that others can reach.", rich_markup_mode=None
)
Name = Annotated[str, typer.Argument(help="Whose key it is.")]
File = Annotated[Path | None, typer.Option("--file", help="Default: keys.json of mom's home.")]


@app.command()
def new(name: Name, file: File = None, json: Json = False) -> None:
    """Make a key and print it, this once."""
    path = file or api_keys.default_file()
    key = api_keys.add(path, name)
    emit(json, {"name": name, "key": key, "path": str(path)}, lambda: typer.echo(key))


@app.command("list")
def list_(file: File = None, json: Json = False) -> None:
    """Whose keys there are."""
    path = file or api_keys.default_file()
    names = api_keys.read(path).names
    emit(json, {"path": str(path), "names": names}, lambda: typer.echo("\n".join(names)))


@app.command()
def drop(name: Name, file: File = None, json: Json = False) -> None:
    """Forget a key; a running service forgets it when it reloads."""
    path = file or api_keys.default_file()
    api_keys.drop(path, name)
    emit(json, {"name": name, "path": str(path)}, lambda: typer.echo(f"dropped {name}"))
