"""`mom eval`: evaluate slices on held-out text, tasks and probes."""

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from mom.commands.options import Compare, emit
from slices.errors import BadConfig
from slices.measure.compare_mode import CompareMode
from slices.report.eval_task import EvalTask, parse_tasks

Slices = Annotated[list[str], typer.Argument(metavar="SLICE...", help="Slices, checkpoints or GGUF files.")]
Domain = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[,NAME...]",
        help="Domains of held-out text; repeatable; 'all' for those of --data. Default: the slices' own "
        "domains, and with --data 'general' as a control.",
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(metavar="MODEL|SLICE|none", help="Model to compare with. Default: the slices' parent."),
]
Data = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of corpora/<domain>/heldout.jsonl and questions/*.jsonl."),
]
Tasks = Annotated[
    str,
    typer.Option(metavar="TASK[,TASK...]", help=f"Tasks: {', '.join(EvalTask)}; or all."),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=2, help="Documents and task items per domain. Default: all documents up to --max-bytes, 50 items."
    ),
]
MaxBytes = Annotated[int, typer.Option(min=1, help="Bytes of held-out text per domain, a fixed sample.")]
Window = Annotated[int, typer.Option(min=16, help="Bytes of text per forward pass.")]
Stride = Annotated[
    int | None, typer.Option(min=1, help="Bytes scored at the end of each window. Default: the whole window.")
]
Needle = Annotated[
    list[int] | None,
    typer.Option(min=64, metavar="TOKENS", help="Context length of the needle in a haystack; repeatable."),
]
LongDocuments = Annotated[
    int,
    typer.Option(
        min=0,
        help="Documents per domain of 1,024 to 8,192 tokens, for bits by position and needles of slices with "
        "less attention than their parent (of all models: --tasks long-context); 0: none.",
    ),
]
Harness = Annotated[
    list[str] | None, typer.Option(metavar="TASK", help="Task of lm-evaluation-harness; repeatable.")
]
IncludePath = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of further task files for --harness.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")]
Seed = Annotated[int, typer.Option(help="Random seed of probes and tests of differences.")]
Json = Annotated[Path | None, typer.Option(help="Write the report as JSON; - for stdout.")]
Html = Annotated[Path | None, typer.Option(help="Write the report as a self-contained HTML page.")]


def eval_(
    slices: Slices,
    domain: Domain = None,
    baseline: Baseline = None,
    data: Data = None,
    tasks: Tasks = "text",
    limit: Limit = None,
    max_bytes: MaxBytes = 60_000,
    window: Window = 1800,
    stride: Stride = None,
    needle: Needle = None,
    long_documents: LongDocuments = 12,
    harness: Harness = None,
    include_path: IncludePath = None,
    compare: Compare = CompareMode.AUTO,
    threads: Threads = None,
    seed: Seed = 0,
    json: Json = None,
    html: Html = None,
) -> None:
    """Evaluate slices against their parent or another baseline: perplexity, KL, tasks, probes, cost."""
    from mom.display import eval_html, eval_tables
    from mom.workflows.evaluate import EvalRequest, run_evaluation
    from slices.files.atomic import write_text
    from slices.pictures.figure import require_matplotlib
    from slices.probes.needle_in_a_haystack import LENGTHS
    from slices.report.config import EvalConfig

    config = EvalConfig(
        tasks=_parse_tasks(tasks),
        max_bytes=max_bytes,
        window_bytes=window,
        stride_bytes=stride,
        limit=limit,
        needle_lengths=tuple(needle) if needle else LENGTHS,
        long_documents=long_documents,
        threads=threads,
        seed=seed,
    )
    request = EvalRequest(
        slices=slices,
        domains=_split_commas(domain or []),
        baseline=baseline,
        data=data,
        compare=compare,
        harness=harness or (),
        include_path=include_path,
        config=config,
    )
    if html is not None:
        require_matplotlib()
    report = run_evaluation(request)
    if html is not None:
        eval_html.write_page(report, slices, html)
    if json == Path("-"):
        emit(True, report, None)
        return
    if json is not None:
        write_text(json, dumps(report, indent=2) + "\n")
    eval_tables.show_report(report)


def _parse_tasks(text: str) -> frozenset[EvalTask]:
    try:
        return parse_tasks(text)
    except BadConfig as error:
        raise typer.BadParameter(str(error)) from None


def _split_commas(values: list[str]) -> list[str]:
    """Values of an option that is repeatable and takes comma-separated lists, without duplicates."""
    parts = [part.strip() for value in values for part in value.split(",")]
    return list(dict.fromkeys(part for part in parts if part))
