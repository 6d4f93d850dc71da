"""`mom serve`: every slice behind one OpenAI-compatible address."""

from pathlib import Path
from typing import Annotated

import typer

from mom.commands.options import Config


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
    from mom.workflows import serve

    if cluster_config is not None:
        serve.write_cluster_config(config, host, port, cluster_config)
    else:
        serve.serve(config, host, port)
