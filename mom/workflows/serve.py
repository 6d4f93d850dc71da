"""`mom serve`: every slice behind one address, until told to stop."""

import os
from pathlib import Path

import yaml

from mom.display import console
from router import settings
from router.serving import cluster_config
from router.serving.applications import Plan
from router.serving.foreground import serve_forever
from router.serving.lifecycle import Running, check
from router.settings import Settings
from slices.files import atomic


def serve(config: Path | None, host: str | None, port: int | None) -> None:
    """Serve in the foreground; command-line values go before those of serve.yaml."""
    console.warn("starting; the first start fits the router and loads every expert")
    serve_forever(lambda: _settings(config, host, port), _ready, _reloaded)


def write_cluster_config(config: Path | None, host: str | None, port: int | None, out: Path) -> None:
    """Check what would be served, and write it as a configuration of Ray Serve."""
    plan = check(_settings(config, host, port), listening=True)
    text = yaml.safe_dump(cluster_config.configuration(plan), sort_keys=False)
    atomic.write_text(out, text)
    console.out.print(f"wrote {out}; deploy it with `serve deploy {out}`", soft_wrap=True)


def _settings(config: Path | None, host: str | None, port: int | None) -> Settings:
    said = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    return Settings.model_validate(settings.read(config).model_dump() | said)


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
