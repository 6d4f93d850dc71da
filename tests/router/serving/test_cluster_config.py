"""The configuration for a Ray cluster: what it says, and that Ray's own `serve run` makes a service of it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import httpx
import pytest
import yaml

from mom.workflows import serve
from router.errors import BadSettings
from router.serving import build, cluster_config, lifecycle
from router.settings import Settings
from tests.router.serving.test_lifecycle import scripted

SECONDS = 120


@pytest.fixture
def written(slices_root: Path, tmp_path: Path) -> Path:
    settings = scripted().model_dump(mode="json") | {"slices": str(slices_root)}
    config, out = tmp_path / "serve.yaml", tmp_path / "cluster.yaml"
    config.write_text(yaml.safe_dump(settings))
    serve.write_cluster_config(config, None, None, out)
    return out


def test_each_expert_is_an_application_and_the_ingress_the_last(written: Path, slices_root: Path) -> None:
    configuration = yaml.safe_load(written.read_text())
    applications = configuration["applications"]
    assert [each["name"] for each in applications] == [
        "mom-bio",
        "mom-gen",
        "mom-lex",
        "mom",
    ]
    assert [each["route_prefix"] for each in applications] == [None, None, None, "/"]
    settings = applications[0]["args"]["settings"]
    assert settings["slices"] == str(slices_root) and Path(settings["router"]).is_absolute()
    with pytest.raises(BadSettings, match=r"no expert 'gone'.*bio, gen, lex"):
        cluster_config.expert({"name": "gone", "settings": settings})


def test_the_router_that_ships_needs_no_folder(slices_root: Path, mom_home: Path) -> None:
    settings = scripted().model_copy(update={"embedder": None, "slices": slices_root})
    plan = lifecycle.check(settings)
    args = cluster_config.configuration(plan)["applications"][-1]["args"]
    assert args["settings"]["router"] is None
    assert build.load_or_fit_router(Settings.model_validate(args["settings"])).classes == plan.router.classes


@pytest.mark.slow
def test_ray_serves_it(written: Path) -> None:
    port = yaml.safe_load(written.read_text())["http_options"]["port"]
    url = f"http://127.0.0.1:{port}"
    with running(written, url):
        question = [{"role": "user", "content": "Is a verbal contract enforceable against a landlord?"}]
        response = httpx.post(
            f"{url}/v1/chat/completions", json={"model": "auto", "messages": question}, timeout=60
        )
        assert (response.status_code, response.headers["x-mom-expert"]) == (200, "lex")
        assert response.json()["choices"][0]["message"]["content"] == "I am lex."


@contextmanager
def running(file: Path, url: str) -> Iterator[None]:
    command = [sys.executable, "-m", "ray.serve.scripts", "run", str(file)]
    with (file.parent / "output").open("w+b") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
        )
        try:
            deadline = monotonic() + SECONDS
            while not ready(url):
                assert process.poll() is None and monotonic() < deadline, (file.parent / "output").read_text()
                sleep(0.5)
            yield
        finally:
            process.terminate()  # not SIGINT, which is ignored below a shell's background job
            process.wait(timeout=60)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=30).status_code == 200
    except httpx.HTTPError:
        return False
