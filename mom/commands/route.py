"""`mom route`: fit, fine-tune, query, evaluate and correct the router."""

from pathlib import Path
from typing import Annotated

import typer

from mom.commands.options import Config, DeviceName, Json, Output, emit

app = typer.Typer(
    no_args_is_help=True, help="Fit, query, evaluate and correct the router.", rich_markup_mode=None
)
Queries = Annotated[
    Path | None,
    typer.Option(help='Additional labelled queries: JSONL with "query" and "domain", or a folder.'),
]


@app.command("tune")
def route_tune(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the fine-tuned encoder.")],
    data: Queries = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training queries.")] = 8,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Keep only the first N layers: fewer are faster.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    device: Annotated[DeviceName, typer.Option(help="Device to train on.")] = DeviceName.AUTO,
    config: Config = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an output that exists.")] = False,
    json: Json = False,
) -> None:
    """Fine-tune the sentence encoder on 1,000 or more labelled queries; then fit the router on it."""
    from mom.workflows import route
    from router.training.finetune import FinetuneConfig

    finetune_config = FinetuneConfig(epochs=epochs, layers=layers, seed=seed)
    result = route.finetune_encoder(data, output, config, finetune_config, device.value, force)
    emit(json, result, lambda: route.show_finetuned(result))


@app.command("fit")
def route_fit(
    data: Queries = None,
    output: Output = None,
    all_classes: Annotated[
        bool, typer.Option("--all-classes", help="Also fit DATA's domains that have no domain file.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Fit the router on the domains' example queries and DATA."""
    from mom.workflows import route

    result = route.fit_router(data, output, config, all_classes)
    emit(json, result, lambda: route.show_fit(result))


@app.command("explain")
def route_explain(
    text: Annotated[str, typer.Argument(help="The query to route.")],
    config: Config = None,
    json: Json = False,
) -> None:
    """Show which expert would answer TEXT, and why."""
    from mom.workflows import route

    decision = route.explain(text, config)
    emit(json, decision, lambda: route.show_decision(decision))


@app.command("eval")
def route_eval(
    data: Annotated[
        Path,
        typer.Option(help='JSONL with "query" and "domain" ("ood": out-of-domain), or a folder.'),
    ],
    leave_one_source_out: Annotated[
        bool,
        typer.Option(help="Also judge each source of DATA by a router fitted without it: a fit for each."),
    ] = False,
    leave_one_form_out: Annotated[
        bool,
        typer.Option(help="Also judge each form of the example queries by a router fitted without it."),
    ] = False,
    config: Config = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write the report as a self-contained HTML page.")
    ] = None,
    json: Json = False,
) -> None:
    """Evaluate the router on labelled queries: routed decisions, forced choice, calibration, latency."""
    from dataclasses import asdict

    from mom.display import route_tables
    from mom.workflows import route_eval
    from slices.pictures.figure import require_matplotlib

    if html is not None:
        require_matplotlib()
    report = route_eval.evaluate_router(data, config, leave_one_source_out, leave_one_form_out)
    if html is not None:
        route_eval.write_html(report, html)
    emit(json, asdict(report), lambda: route_tables.show(report))


@app.command("feedback")
def route_feedback(
    file: Annotated[
        Path,
        typer.Argument(help='JSONL: "query" and the correct "domain", or "expert" and "rating" (up, down).'),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Folder of the adapted router. [default: `router` of serve.yaml]"
        ),
    ] = None,
    store: Annotated[
        bool,
        typer.Option("--store", help="Keep the labelled queries, with their text, in $MOM_HOME/feedback."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change; write nothing.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Adapt the router to corrected labels and ratings of logged queries, and show what changes."""
    from mom.workflows import route_feedback

    result = route_feedback.give_feedback(file, output, config, store, dry_run)
    emit(json, result.as_json(), lambda: route_feedback.show_feedback(result))
