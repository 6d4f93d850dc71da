"""The command line: parses, calls, prints. Every heavy import is inside the command that needs it."""

import os
import sys
from typing import Annotated

import typer

from mom import __version__
from mom.commands import demo, eval, heal, inspect, key, list, quantize, route, serve, slice, top

app = typer.Typer(
    name="mom",
    help="Mixture of Models: cut small domain experts out of one checkpoint, measure them, route to them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Options that hold for every command."""
    if version:
        typer.echo(f"mom {__version__}")
        raise typer.Exit


app.command("inspect")(inspect.inspect)
app.command("slice")(slice.slice_)
app.command("heal")(heal.heal)
app.command("quantize")(quantize.quantize)
app.command("eval")(eval.eval_)
app.add_typer(route.app, name="route")
app.command("serve")(serve.serve)
app.command("top")(top.top)
app.add_typer(key.app, name="key")
app.command("list")(list.list_)
app.command("demo")(demo.demo)


def main() -> None:
    """Run a command; an error that is the user's to mend is one line on stderr and exit code 1."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from router.errors import RouterError
    from slices.errors import SliceError

    try:
        app()
    except (SliceError, RouterError, OSError) as error:
        from mom.display import console

        console.fail(str(error) or type(error).__name__)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
