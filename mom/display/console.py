"""Terminal output: results on stdout, progress and warnings on stderr, errors on one line."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from slices.progress import Progress

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
PIPE_WIDTH = 200  # columns


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, nothing else."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on stdout; columns after the first are aligned right."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        first = index == 0
        table.add_column(column, justify="left" if first else "right", overflow="fold", no_wrap=first)
    for row in rows:
        table.add_row(*row)
    wide().print(table)


def wide() -> Console:
    """The console of tables: in a file or a pipe they need not fit a terminal."""
    return out if out.is_terminal else Console(highlight=False, width=max(out.width, PIPE_WIDTH))


def fail(message: str) -> None:
    """An error as one line on stderr, not wrapped, so that scripts can read it."""
    err.print("error:", " ".join(message.split()), style="red", soft_wrap=True, markup=False)


def warn(message: str) -> None:
    """A warning on stderr."""
    err.print(message, style="yellow", soft_wrap=True, markup=False)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress callback that shows one bar per stage on stderr; large totals are taken for bytes."""
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as ProgressBar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(),
    )
    with ProgressBar(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, amount="")
            task = tasks[stage]
            speed = bar.tasks[bar.task_ids.index(task)].speed
            bar.update(task, completed=done, total=total, amount=_amount(done, total, speed))

        yield report


def size(count: float) -> str:
    """A size in decimal units: 242.6 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def number(count: int) -> str:
    """A parameter count in short: 121.3 M."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.2f} {unit}"
    return str(count)


def _amount(done: int, total: int, speed: float | None) -> str:
    if total < 100_000:
        return f"{done}/{total}"
    rate = f", {size(speed)}/s" if speed else ""
    return f"{size(done)} of {size(total)}{rate}"
