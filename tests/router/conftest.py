"""Fixtures: a fitted router, scripted experts, and a service over them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from logging import Logger
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import TracerProvider

from router.api.app import Service, build_app
from router.api.middleware.access_log import open_log
from router.api.middleware.api_keys import ApiKeys
from router.embedding.embedder import HashEmbedder
from router.engine.worker import LocalEngine
from router.experts import catalogue
from router.routing.cascade import Cascade
from router.routing.model import Router
from router.serving import ray_env
from router.settings import Limits
from router.training.fit import fit
from slices.runtime import Batcher, Runtime
from slices.runtimes.scripted import ScriptedRuntime
from slices.runtimes.single_sequence import SingleSequenceBatcher
from tests.router.router_world import PAIRS, TEMPLATE, write_slice

ray_env.prepare(private=True)  # before any test imports Ray


@pytest.fixture(scope="session")
def embedder() -> HashEmbedder:
    return HashEmbedder()


@pytest.fixture(scope="session")
def fitted(embedder: HashEmbedder) -> Router:
    return fit(PAIRS, [embedder])


@pytest.fixture(scope="session")
def cascade(fitted: Router, embedder: HashEmbedder) -> Cascade:
    return Cascade(fitted, [embedder])


@pytest.fixture
def slices_root(mom_home: Path) -> Path:
    """Three slices in `$MOM_HOME`: biochem, law and a generalist; law brings a chat template."""
    root = mom_home / "slices"
    write_slice(root, "bio", "biochem")
    (write_slice(root, "lex", "law") / "chat_template.jinja").write_text(TEMPLATE)
    write_slice(root, "gen", "general")
    return root


Client = Callable[..., TestClient]


@pytest.fixture
def serve(slices_root: Path, cascade: Cascade) -> Iterator[Client]:
    """Start the service in this process; `serve(bio=runtime)` gives an expert another runtime.

    `batcher` opens a model for all of them.
    """
    engines: list[LocalEngine] = []
    logs: list[Logger] = []

    def start(
        limits: Limits | None = None,
        batcher: Callable[[], Batcher] | None = None,
        max_queued_requests: int = 32,
        log: Path | None = None,
        log_prompts: bool = False,
        keys: ApiKeys | None = None,
        traces: TracerProvider | None = None,
        **runtimes: Runtime,
    ) -> TestClient:
        served = catalogue.read()
        scripted = {name: ScriptedRuntime(default=f"I am {name}.") for name in served.experts}
        openers: dict[str, Callable[[], Batcher]] = {
            name: partial(SingleSequenceBatcher, runtime) for name, runtime in (scripted | runtimes).items()
        }
        if batcher:
            openers |= dict.fromkeys(openers, batcher)
        engines.append(LocalEngine(openers, max_queued_requests))
        logs.extend([open_log(log)] if log else [])
        service = Service(
            predictor=cascade,
            thresholds=cascade.router.thresholds,
            catalogue=served,
            engine=engines[-1],
            limits=limits or Limits(),
            api_keys=keys,
            encoder=cascade.last_embedder,  # type: ignore[arg-type]
            access_log=logs[-1] if log else None,
            log_prompts=log_prompts,
            tracer_provider=traces,
        )
        return TestClient(build_app(service), raise_server_exceptions=False)

    yield start
    for engine in engines:
        engine.close()
    for handler in (each for opened in logs for each in opened.handlers):
        handler.close()


@contextmanager
def listening(client: TestClient) -> Iterator[str]:
    """The same service on a real socket; its address."""
    server = uvicorn.Server(uvicorn.Config(client.app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
