"""`mom serve` in its own process: SIGHUP reloads it, SIGTERM ends it, and no request is lost."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.router.router_world import write_slice
from tests.router.serving.test_lifecycle import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SECONDS = 120.0


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.2)


@pytest.fixture
def service(mom_home: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    for name, domain in (("lex", "law"), ("gen", "general")):
        write_slice(mom_home / "slices", name, domain)
    port, config = free_port(), tmp_path / "serve.yaml"
    settings = {"port": port, "embedder": "hash", "runtime": "router.engine.scripted:open_batcher"}
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [sys.executable, "-m", "mom", "serve", "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: process.poll() is not None or answers(f"{url}/ready"))
        yield process, url, config
    finally:
        process.terminate()
        process.communicate(timeout=60)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30).status_code == 200
    except httpx.HTTPError:
        return False


def models(url: str) -> list[str]:
    return [each["id"] for each in httpx.get(f"{url}/v1/models", timeout=30).json()["data"]]


def test_hup_reloads_and_term_ends(service: tuple[subprocess.Popen[str], str, Path], mom_home: Path) -> None:
    process, url, config = service
    root = mom_home / "slices"
    assert models(url) == ["auto", "gen", "lex"]
    statuses: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            body = {"model": "lex", "messages": [{"role": "user", "content": "Is it law?"}]}
            statuses.append(httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).status_code)

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        write_slice(root, "bio", "biochem")
        os.kill(process.pid, signal.SIGHUP)
        until(lambda: models(url) == ["auto", "bio", "gen", "lex"])
        shutil.rmtree(root / "bio")
        os.kill(process.pid, signal.SIGHUP)
        until(lambda: models(url) == ["auto", "gen", "lex"])
        good = config.read_text(encoding="utf-8")
        config.write_text("port: [", encoding="utf-8")  # all stays as it was
        os.kill(process.pid, signal.SIGHUP)
        time.sleep(3)
        assert process.poll() is None and models(url) == ["auto", "gen", "lex"]
        config.write_text(good, encoding="utf-8")
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert {*statuses} == {200} and len(statuses) > 20
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "serve.yaml" in output  # of the reload that could not be
    assert not answers(f"{url}/health")


def test_a_cold_expert_ends_and_comes_back_when_asked(
    service: tuple[subprocess.Popen[str], str, Path],
) -> None:
    process, url, config = service
    idle = {"min_replicas": 0, "max_replicas": 1, "downscale_delay_s": 2, "downscale_to_zero_delay_s": 2}
    settings = yaml.safe_load(config.read_text(encoding="utf-8")) | {
        "overrides": {"lex": {"autoscaling": idle}}
    }
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert running("mom-lex")
    os.kill(process.pid, signal.SIGHUP)
    until(lambda: not running("mom-lex"))
    assert running("mom-gen") and answers(f"{url}/ready")
    body = {"model": "lex", "messages": [{"role": "user", "content": "Is it law?"}]}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    assert (answer.status_code, answer.headers["x-mom-expert"]) == (200, "lex")


def running(application: str) -> bool:
    """Whether a replica of it does."""
    listed = subprocess.run(["ps", "axo", "args"], capture_output=True, text=True, check=True).stdout
    return f"ray::ServeReplica:{application}:" in listed
