"""`mom key new|list|drop`: API keys of the service."""

from pathlib import Path
from typing import Annotated

import typer

from mom.commands.options import Json, emit
from router.api.middleware import api_keys

app = typer.Typer(no_args_is_help=True, help="Manage the API keys of the service.", rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="Owner of the key.")]
File = Annotated[Path | None, typer.Option("--file", help="Keys file. [default: keys.json in $MOM_HOME]")]


@app.command()
def new(name: Name, file: File = None, json: Json = False) -> None:
    """Create a key and print it, this once."""
    path = file or api_keys.default_file()
    key = api_keys.add(path, name)
    emit(json, {"name": name, "key": key, "path": str(path)}, lambda: typer.echo(key))


@app.command("list")
def list_(file: File = None, json: Json = False) -> None:
    """List the owners of keys."""
    path = file or api_keys.default_file()
    names = api_keys.read(path).names
    emit(json, {"path": str(path), "names": names}, lambda: typer.echo("\n".join(names)))


@app.command()
def drop(name: Name, file: File = None, json: Json = False) -> None:
    """Delete a key; a running service drops it when it reloads."""
    path = file or api_keys.default_file()
    api_keys.drop(path, name)
    emit(json, {"name": name, "path": str(path)}, lambda: typer.echo(f"dropped {name}"))
