"""Options that several commands take, and how a command's figures are printed."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mom.display import console

DEFAULT_MODEL = "google/gemma-4-E4B-it"
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
Config = Annotated[Path | None, typer.Option(help="A serve.yaml; default the first among the configs.")]
Compare = Annotated[
    str,
    typer.Option(
        help="With the parent's plain quants at equal bytes: auto (a small parent) | always | never."
    ),
]


class DeviceName(StrEnum):
    """Where torch runs; `auto` takes a GPU where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def emit(as_json: bool, figures: Mapping[str, Any], show: Callable[[], None] | None) -> None:
    """Print figures as one JSON object, or have them shown."""
    if as_json:
        console.print_json(figures)
    elif show is not None:
        show()
