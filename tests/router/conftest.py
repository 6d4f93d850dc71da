"""A small world for the router: a fitted one, scripted experts, and a service over them."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from router import catalogue
from router.app import Service, build_app
from router.cascade import Cascade
from router.embed import HashEmbedder
from router.engine import LocalEngine
from router.fit import fit
from router.model import Router
from router.settings import Limits
from slices.runtime import Batcher, Runtime
from slices.runtimes.one_by_one import OneByOne
from slices.runtimes.scripted import ScriptedRuntime
from tests.router.router_world import PAIRS, TEMPLATE, write_slice


@pytest.fixture(scope="session")
def embedder() -> HashEmbedder:
    return HashEmbedder()


@pytest.fixture(scope="session")
def fitted(embedder: HashEmbedder) -> Router:
    return fit(PAIRS, [embedder])


@pytest.fixture(scope="session")
def reader(fitted: Router, embedder: HashEmbedder) -> Cascade:
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
def serve(slices_root: Path, reader: Cascade) -> Iterator[Client]:
    """Start the service in this process; `serve(bio=runtime)` gives an expert another runtime.

    `batcher` opens a model for all of them.
    """
    engines: list[LocalEngine] = []

    def start(
        limits: Limits | None = None,
        batcher: Callable[[], Batcher] | None = None,
        queue: int = 32,
        **runtimes: Runtime,
    ) -> TestClient:
        served = catalogue.read()
        scripted = {name: ScriptedRuntime(default=f"I am {name}.") for name in served.experts}
        openers = {name: partial(OneByOne, runtime) for name, runtime in (scripted | runtimes).items()}
        engines.append(LocalEngine(openers | dict.fromkeys(openers, batcher) if batcher else openers, queue))
        service = Service(reader, reader.router.thresholds, served, engines[-1], limits or Limits())
        return TestClient(build_app(service), raise_server_exceptions=False)

    yield start
    for engine in engines:
        engine.close()
