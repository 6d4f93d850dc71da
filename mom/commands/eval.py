"""The command `mom eval`: parses, calls, prints."""

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from mom.commands.options import Compare, emit
from slices.measure.compare_mode import CompareMode

Slices = Annotated[list[str], typer.Argument(metavar="SLICE...", help="Slices, checkpoints or GGUF files.")]
Domains = Annotated[
    list[str] | None,
    typer.Option(help="Default: the slices' own, and with --data general text as a control; 'all'."),
]
Against = Annotated[str | None, typer.Option(help="The reference; default the parent, or 'none'.")]
Data = Annotated[
    Path | None, typer.Option(help="A folder with corpora/<domain>/heldout.jsonl and questions/.")
]
Tasks = Annotated[str, typer.Option(help="Of text, mcq, generate, code, probes, cost; or 'all'.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Bytes of text a domain.")]
Items = Annotated[int, typer.Option(min=2, help="Items of each task, a domain.")]
Window = Annotated[int, typer.Option(min=16, help="Bytes that are read together.")]
Stride = Annotated[int | None, typer.Option(min=1, help="Bytes of each window that are scored; default all.")]
Needle = Annotated[list[int] | None, typer.Option(min=64, help="Tokens of a text that hides a number.")]
Harness = Annotated[list[str] | None, typer.Option(metavar="TASK", help="A task of lm-evaluation-harness.")]
Include = Annotated[Path | None, typer.Option(help="A folder with task files for --harness.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads; default every core.")]
Json = Annotated[Path | None, typer.Option(help="Write the report to this file, or to stdout if -.")]
Html = Annotated[Path | None, typer.Option(help="Write the report as one self-contained page.")]
Seed = Annotated[int, typer.Option(help="Of the tasks that are made here.")]


def eval_(
    slices: Slices,
    domain: Domains = None,
    against: Against = None,
    data: Data = None,
    tasks: Tasks = "text",
    limit: Limit = 60_000,
    items: Items = 50,
    window: Window = 1800,
    stride: Stride = None,
    needle: Needle = None,
    harness: Harness = None,
    include: Include = None,
    compare: Compare = CompareMode.AUTO,
    threads: Threads = None,
    seed: Seed = 0,
    json: Json = None,
    html: Html = None,
) -> None:
    """Report what slices are worth: fidelity, tasks, probes, costs, against the parent or any reference."""
    from mom.display import eval_html, eval_tables
    from mom.workflows import evaluate
    from slices.files.atomic import write_text
    from slices.probes.needle_in_a_haystack import LENGTHS
    from slices.report.settings import Wish, parse_tasks

    lengths = tuple(needle) if needle else LENGTHS
    wish = Wish(parse_tasks(tasks), limit, window, stride, items, lengths, threads, seed)
    asked = evaluate.Asked(slices, domain or (), against, data, compare, harness or (), include, wish)
    if html is not None:
        eval_html.check_pictures()
    found = evaluate.measure(asked)
    if html is not None:
        eval_html.write_page(found, slices, html)
    if json == Path("-"):
        emit(True, found, None)
        return
    if json is not None:
        write_text(json, dumps(found, indent=2) + "\n")
    eval_tables.show_report(found)
