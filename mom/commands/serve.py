"""`mom serve`: all slices behind one OpenAI-compatible API."""

from pathlib import Path
from typing import Annotated

import typer

from mom.commands.options import Config


def serve(
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Its port. [default: 8000]")] = None,
    cluster_config: Annotated[
        Path | None,
        typer.Option(help="Only write the configuration for a Ray cluster (`serve deploy`) to this file."),
    ] = None,
) -> None:
    """Serve all slices behind one OpenAI-compatible API, on Ray Serve."""
    from mom.workflows import serve

    if cluster_config is not None:
        serve.write_cluster_config(config, host, port, cluster_config)
    else:
        serve.serve(config, host, port)
