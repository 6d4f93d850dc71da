"""The command line. Every heavy import is inside the command that needs it."""

import builtins
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mom import __version__
from mom.commands import demo, eval, heal, inspect, key, list, quantize, route, serve, slice, top

_HELP = {  # in the order of use
    "inspect": "Show a checkpoint's architecture and parameters.",
    "slice": "Cut a domain expert out of a checkpoint.",
    "heal": "Distill the parent into a slice.",
    "quantize": "Write a slice as a quantized GGUF.",
    "eval": "Measure slices: quality, tasks, probes, cost.",
    "route": "Fit, tune, query and evaluate the router.",
    "serve": "Serve all slices behind one OpenAI-compatible API.",
    "top": "Watch a running service.",
    "list": "List the slices: sizes and measured quality.",
    "key": "Manage the API keys of the service.",
    "demo": "Build, and serve, three slices of a small model.",
}


class _Commands(TyperGroup):
    """The commands in the order in which they are used."""

    def list_commands(self, ctx: Any) -> builtins.list[str]:
        """Their names, for the help page."""
        return sorted(self.commands, key=[*_HELP].index)


app = typer.Typer(
    name="mom",
    cls=_Commands,
    help="Mixture of Models: slice domain experts out of one LLM checkpoint, and route queries to them.",
    epilog="'mom demo' runs all of it on a small model. 'mom COMMAND -h' shows a command's options.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Options of every command."""
    if version:
        typer.echo(f"mom {__version__}")
        raise typer.Exit


_COMMANDS: dict[str, Callable[..., None]] = {
    "inspect": inspect.inspect,
    "slice": slice.slice_,
    "heal": heal.heal,
    "quantize": quantize.quantize,
    "eval": eval.eval_,
    "serve": serve.serve,
    "top": top.top,
    "list": list.list_,
    "demo": demo.demo,
}
for _name, _help in _HELP.items():
    if _name in _COMMANDS:
        app.command(_name, short_help=_help)(_COMMANDS[_name])
app.add_typer(route.app, name="route", short_help=_HELP["route"])
app.add_typer(key.app, name="key", short_help=_HELP["key"])


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
