"""The command line: parses, calls, prints. Every heavy import is inside the command that needs it."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mom import __version__, keys, making, reporting
from mom.options import Corpus, Json, Output, emit

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


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A folder, config.json, name or hub id.")],
    domain: Annotated[str | None, typer.Option(help="Score the parts on this domain's text too.")] = None,
    corpus: Corpus = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the layers' scores: .svg or .png.")] = None,
    json: Json = False,
) -> None:
    """Show what a checkpoint is made of, and with --domain what its parts are worth."""
    from mom import inspecting

    figures = inspecting.inspect(model)
    if domain is None:
        emit(json, figures, lambda: inspecting.show(model, figures))
        return
    from mom import scoring

    figures["scores"] = scoring.score(model, domain, tuple(corpus or ()), picture)
    emit(json, figures, lambda: scoring.show_scores(figures["scores"]))


app.command("slice")(making.slice_)
app.command("heal")(making.heal)
app.command("quantize")(making.quantize)


app.command("eval")(reporting.eval_)


route = typer.Typer(no_args_is_help=True, help="Fit, ask and measure the router.", rich_markup_mode=None)
app.add_typer(route, name="route")
app.add_typer(keys.app, name="key")
Queries = Annotated[
    Path | None, typer.Option(help='More queries: JSONL with "query" and "domain", or a folder.')
]
Config = Annotated[Path | None, typer.Option(help="A serve.yaml; default the first among the configs.")]


@route.command("tune")
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
    from mom import routing
    from router.tune import Tuning

    tuning = Tuning(epochs, layers=layers, seed=seed)
    figures = routing.tune(data, output, config, tuning, device, force)
    emit(json, figures, lambda: routing.show_tuned(figures))


@route.command("fit")
def route_fit(
    data: Queries = None,
    output: Output = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Fit the router on the domains' example queries."""
    from mom import routing

    figures = routing.fit(data, output, config)
    emit(json, figures, lambda: routing.show_fit(figures))


@route.command("explain")
def route_explain(text: str, config: Config = None, json: Json = False) -> None:
    """Say which expert would answer TEXT, and why."""
    from mom import routing

    figures = routing.explain(text, config)
    emit(json, figures, lambda: routing.show_decision(figures))


@route.command("eval")
def route_eval(
    data: Annotated[
        Path, typer.Option(help='JSONL with "query" and "domain" ("ood": no expert), or a folder.')
    ],
    config: Config = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures there too.")] = None,
    json: Json = False,
) -> None:
    """Measure the router on labelled queries."""
    from dataclasses import asdict

    from mom import paging, routing

    if html is not None:
        paging.check_pictures()
    report = routing.measure(data, config)
    if html is not None:
        routing.write_page(report, html)
    emit(json, asdict(report), lambda: routing.show_measured(report))


@app.command()
def serve(
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="Default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default 8000.")] = None,
    cluster_config: Annotated[
        Path | None,
        typer.Option(help="Start nothing; write there what `serve deploy` wants for a Ray cluster."),
    ] = None,
) -> None:
    """Serve every slice behind one OpenAI-compatible address, on Ray Serve."""
    from mom import serving

    if cluster_config is not None:
        serving.write_cluster_config(config, host, port, cluster_config)
    else:
        serving.serve(config, host, port)


@app.command()
def top(
    url: Annotated[str, typer.Option(help="Where the service is.")] = "http://127.0.0.1:8000",
    key: Annotated[str | None, typer.Option(help="An API key, where it wants one.", envvar="MOM_KEY")] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one table and leave.")] = False,
    json: Json = False,
) -> None:
    """Watch a running service: its experts, their load, speed and failures."""
    from mom import topping

    topping.top(url.rstrip("/"), key, every, once, json)


@app.command()
def demo(
    serve: Annotated[bool, typer.Option("--serve", help="Serve the slices and ask three questions.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Stop the service again.")] = False,
) -> None:
    """Build three slices of the embedded Gemma 3 270M, quantized; with --serve, ask them."""
    from mom import demo as demo_
    from mom import slicing

    demo_.build()
    slicing.show_list(slicing.listing())
    if serve or check:
        demo_.serve_and_ask(check)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the slices there are, with sizes and headline quality."""
    from mom import slicing

    figures = slicing.listing()
    emit(json, figures, lambda: slicing.show_list(figures))


def main() -> None:
    """Run a command; an error that is the user's to mend is one line on stderr and exit code 1."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from router.errors import RouterError
    from slices.errors import SliceError

    try:
        app()
    except (SliceError, RouterError, OSError) as error:
        from mom import console

        console.fail(str(error) or type(error).__name__)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
