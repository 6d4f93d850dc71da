"""The command line: parses, calls, prints. Every heavy import is inside the command that needs it."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mom import __version__

DEFAULT_MODEL = "google/gemma-4-E4B-it"
app = typer.Typer(
    name="mom",
    help="Mixture of Models: cut small domain experts out of one checkpoint, measure them, route to them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ModelOption = Annotated[
    str,
    typer.Option(help="A folder, a name in $MOM_HOME or a hub id.", envvar="MOM_MODEL", show_default=True),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Where to write; default under $MOM_HOME.")
]
Corpus = Annotated[list[Path] | None, typer.Option(help="Domain text: .txt, .md, .jsonl files or folders.")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Options that hold for every command."""
    if version:
        typer.echo(f"mom {__version__}")
        raise typer.Exit


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A folder, config.json, name or hub id.")], json: Json = False
) -> None:
    """Show what a checkpoint is made of, from its config and headers alone."""
    from mom import inspecting

    figures = inspecting.inspect(model)
    _print(json, figures, lambda: inspecting.show(model, figures))


@app.command("slice")
def slice_(
    domain: Annotated[str, typer.Option(help="A domain of configs/domains, such as biochem.")],
    layers: Annotated[str, typer.Option(help="all | swa | full | 0-23 | 0-5,11,17 | drop:12,13")],
    model: ModelOption = DEFAULT_MODEL,
    vocab: Annotated[str, typer.Option(help="all | domain (rows its text uses) | N rows")] = "all",
    ffn: Annotated[str, typer.Option(help="all")] = "all",
    corpus: Corpus = None,
    output: Output = None,
    name: Annotated[str | None, typer.Option(help="The slice's name; default the domain's.")] = None,
    seed: Annotated[int, typer.Option(help="For text that the parent writes itself.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its exact size; write nothing.")
    ] = False,
    json: Json = False,
    force: Force = False,
) -> None:
    """Cut a domain expert out of a checkpoint."""
    from mom import slicing
    from slices.cut import Request
    from slices.errors import Unsupported

    if ffn != "all":
        raise Unsupported(
            f"--ffn {ffn}: cutting neurons needs their scores, which this version does not have yet"
        )
    request = Request(domain, layers, model, vocab, tuple(corpus or ()), output, name, seed, force)
    figures = slicing.dry_run(request) if dry_run else slicing.slice_model(request)
    _print(json, figures, lambda: slicing.show(figures))


@app.command("list")
def list_(json: Json = False) -> None:
    """List the slices there are, with sizes and headline quality."""
    from mom import slicing

    figures = slicing.listing()
    _print(json, figures, lambda: slicing.show_list(figures))


def _print(as_json: bool, figures: dict[str, Any], show: Any) -> None:
    from mom import console

    if as_json:
        console.print_json(figures)
    else:
        show()


def main() -> None:
    """Run a command; an error that is the user's to mend is one line on stderr and exit code 1."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from slices.errors import SliceError

    try:
        app()
    except (SliceError, OSError) as error:
        from mom import console

        console.fail(str(error) or type(error).__name__)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
