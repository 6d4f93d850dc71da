"""`mom route`: fit, tune, ask and measure the router."""

from pathlib import Path
from typing import Annotated

import typer

from mom.commands.options import Config, Json, Output, emit

app = typer.Typer(no_args_is_help=True, help="Fit, ask and measure the router.", rich_markup_mode=None)
Queries = Annotated[
    Path | None, typer.Option(help='More queries: JSONL with "query" and "domain", or a folder.')
]


@app.command("tune")
def route_tune(
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of the tuned encoder.")],
    data: Queries = None,
    epochs: Annotated[int, typer.Option(min=1, help="Times that every query is read.")] = 8,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Keep only the first so many: fewer are faster.")
    ] = None,
    seed: int = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    config: Config = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    json: Json = False,
) -> None:
    """Tune the encoder on labelled queries, a thousand or more; a fit on it comes after."""
    from mom.workflows import route
    from router.training.finetune import Tuning

    tuning = Tuning(epochs, layers=layers, seed=seed)
    figures = route.tune(data, output, config, tuning, device, force)
    emit(json, figures, lambda: route.show_tuned(figures))


@app.command("fit")
def route_fit(
    data: Queries = None,
    output: Output = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Fit the router on the domains' example queries."""
    from mom.workflows import route

    figures = route.fit(data, output, config)
    emit(json, figures, lambda: route.show_fit(figures))


@app.command("explain")
def route_explain(text: str, config: Config = None, json: Json = False) -> None:
    """Say which expert would answer TEXT, and why."""
    from mom.workflows import route

    figures = route.explain(text, config)
    emit(json, figures, lambda: route.show_decision(figures))


@app.command("eval")
def route_eval(
    data: Annotated[
        Path, typer.Option(help='JSONL with "query" and "domain" ("ood": no expert), or a folder.')
    ],
    config: Config = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a self-contained HTML page.")] = None,
    json: Json = False,
) -> None:
    """Measure the router on labelled queries."""
    from dataclasses import asdict

    from mom.workflows import route
    from slices.pictures.figure import require_matplotlib

    if html is not None:
        require_matplotlib()
    report = route.measure(data, config)
    if html is not None:
        route.write_page(report, html)
    emit(json, asdict(report), lambda: route.show_measured(report))
