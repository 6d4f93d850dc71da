"""`mom serve`: all slices behind one OpenAI-compatible API, in the foreground."""

import os
from pathlib import Path

import yaml

from mom.display import console
from router import settings
from router.serving import cluster_config
from router.serving.applications import DeployPlan
from router.serving.foreground import serve_forever
from router.serving.lifecycle import RunningService, check
from router.settings import Settings
from slices.files import atomic


def serve(config: Path | None, host: str | None, port: int | None) -> None:
    """Serve in the foreground; command-line values override serve.yaml."""
    console.warn("starting; the first start fits the router and loads every expert")
    serve_forever(lambda: _settings(config, host, port), _on_ready, _on_reload)


def write_cluster_config(config: Path | None, host: str | None, port: int | None, out: Path) -> None:
    """Check the settings, and write Ray Serve's configuration for a cluster."""
    plan = check(_settings(config, host, port), listening=True)
    text = yaml.safe_dump(cluster_config.configuration(plan), sort_keys=False)
    atomic.write_text(out, text)
    console.out.print(f"wrote {out}; deploy it with `serve deploy {out}`", soft_wrap=True)


def _settings(config: Path | None, host: str | None, port: int | None) -> Settings:
    overrides = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    return Settings.model_validate(settings.read(config).model_dump() | overrides)


def _on_ready(running: RunningService) -> None:
    url = running.url
    for name, error in running.failed.items():
        console.warn(f"{name} did not start, and the generalist answers in its place: {error}")
    console.out.print(
        f"serving at {url} (OpenAI API under {url}/v1); Ctrl-C stops it, kill -HUP {os.getpid()} reloads it",
        soft_wrap=True,
    )


def _on_reload(result: DeployPlan | Exception) -> None:
    if isinstance(result, DeployPlan):
        console.warn(f"reloaded; the experts are {', '.join(result.catalogue.experts)}")
    else:
        console.warn(f"not reloaded, the service goes on as it was: {result}")
