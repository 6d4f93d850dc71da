"""`mom serve`: every slice behind one address, until told to stop."""

import os
from pathlib import Path

from mom import console
from router import settings
from router.deploy import Plan
from router.forever import serve_forever
from router.serve import Running
from router.settings import Settings


def serve(config: Path | None, host: str | None, port: int | None) -> None:
    """Serve in the foreground; command-line values go before those of serve.yaml."""
    said = {key: value for key, value in (("host", host), ("port", port)) if value is not None}

    def read() -> Settings:
        return Settings.model_validate(settings.read(config).model_dump() | said)

    console.warn("starting; the first start fits the router and loads every expert")
    serve_forever(read, _ready, _reloaded)


def _ready(running: Running) -> None:
    url = running.url
    for name, why in running.failed.items():
        console.warn(f"{name} did not start, and the generalist answers in its place: {why}")
    console.out.print(
        f"serving at {url} (OpenAI API under {url}/v1); Ctrl-C stops it, kill -HUP {os.getpid()} reloads it",
        soft_wrap=True,
    )


def _reloaded(what: Plan | Exception) -> None:
    if isinstance(what, Plan):
        console.warn(f"reloaded; the experts are {', '.join(what.catalogue.experts)}")
    else:
        console.warn(f"not reloaded, all stays as it was: {what}")
