"""Options shared by several commands, and the printing of a command's result."""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mom.display import console
from slices.measure.compare_mode import CompareMode

_SIZE = re.compile(r"(\d+(?:\.\d+)?) *(k|ki|m|mi|g|gi)?b?", re.IGNORECASE)  # pydantic's ByteSize: 1,5GB is 1
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
DEFAULT_MODEL = "google/gemma-4-E4B-it"
ModelOption = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="A folder, a name in $MOM_HOME or a hub id.",
        envvar="MOM_MODEL",
        show_default=True,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing output.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Output folder. [default: in $MOM_HOME]")]
Corpus = Annotated[
    list[Path] | None,
    typer.Option(metavar="PATH", help="Domain text: .txt, .md, .jsonl files or folders."),
]
Config = Annotated[
    Path | None,
    typer.Option(help="serve.yaml. [default: the first one in ./configs, $MOM_HOME/configs, the package]"),
]
Compare = Annotated[
    CompareMode,
    typer.Option(help="Compare with the parent's plain quants of equal size; auto: if it takes minutes."),
]


class DeviceName(StrEnum):
    """Where torch runs; `auto` takes a GPU where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def parse_size(text: str) -> int:
    """Bytes of a size such as 100MB, 2.5GB (powers of ten) or 96MiB (powers of two).

    Raises:
        BadParameter: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise typer.BadParameter(f"{text!r}: expected a size such as 100MB, 2.5GB or 96MiB")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])


def emit(as_json: bool, figures: Mapping[str, Any], show: Callable[[], None] | None) -> None:
    """Print `figures` as one JSON object, else call `show`."""
    if as_json:
        console.print_json(figures)
    elif show is not None:
        show()
