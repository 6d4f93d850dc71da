"""The service on Ray Serve with the openai client; and settings that are refused before it starts."""

import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from openai import APIError, NotFoundError, OpenAI

from router.api.middleware import tracing
from router.engine.scripted import REPLIES
from router.errors import BadSettings, ExpertFailed, RouterError
from router.serving import lifecycle
from router.serving.applications import APP, INGRESS, DeployPlan
from router.settings import Logs, Settings
from slices import manifest
from slices.errors import MissingExtra, SliceError
from tests.router.router_world import DOMAINS, write_slice

# Ray 2.60 under pydantic 2.14.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scripted(**more: object) -> Settings:
    fields = {"port": free_port(), "embedder": "hash", "runtime": "router.engine.scripted:open_batcher"}
    return Settings.model_validate(fields | more)


LAW: list[Any] = [{"role": "user", "content": "Is a verbal contract enforceable?"}]


@pytest.fixture
def plan(slices_root: Path) -> Iterator[DeployPlan]:
    (slices_root / "lex" / REPLIES).write_text(json.dumps({"verbal": "Often, but hard to prove."}))
    plan = lifecycle.check(scripted(), DOMAINS)
    try:
        assert lifecycle.run(plan).failed == {}
        yield plan
    finally:
        lifecycle.shutdown()


def test_the_service_as_the_openai_client_sees_it(plan: DeployPlan, slices_root: Path) -> None:
    """One start of Ray for all of it, since a start takes ten seconds."""
    url = f"http://127.0.0.1:{plan.settings.port}/v1"
    client = OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60)
    if sys.platform == "linux":
        the_ingress_has_our_priority()
    no_port_of_ray_is_for_others()
    the_right_expert_answers(client)
    every_answer_has_one_id(f"http://127.0.0.1:{plan.settings.port}/health")
    a_reload_drops_no_request(client, plan, slices_root)


def the_ingress_has_our_priority() -> None:
    """Ray starts workers at nice 15, where any other work on the machine starves the service."""
    title = f"ray::ServeReplica:{APP}:{INGRESS}".encode()
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # others may end meanwhile
            found += [int(each.parent.name)] if each.read_bytes().startswith(title) else []
    assert found
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in found} == {os.getpriority(os.PRIO_PROCESS, 0)}


def no_port_of_ray_is_for_others() -> None:
    """Who reaches one can run code: each is on loopback, or asks for a token before it reads anything."""
    listening = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            listening += [each.laddr for each in process.net_connections() if each.status == "LISTEN"]
    assert len(listening) > 5
    for host, port in listening:
        if ip_address(host.removeprefix("::ffff:")).is_loopback:
            continue
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as refused:
                ask(b"", timeout=30)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def the_right_expert_answers(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=LAW)
    assert raw.headers["x-mom-expert"] == "lex"
    answer = raw.parse()
    assert answer.choices[0].message.content == "Often, but hard to prove."
    assert answer.usage is not None and answer.usage.completion_tokens == 5

    stream = client.chat.completions.create(model="auto", messages=LAW, stream=True, stop=["hard"])
    parts = [chunk.choices[0] for chunk in stream]
    assert "".join(part.delta.content or "" for part in parts) == "Often, but "
    assert parts[-1].finish_reason == "stop"

    text = client.completions.create(model="bio", prompt="Once", max_tokens=2)
    assert (text.choices[0].text, text.choices[0].finish_reason) == ("I am", "length")
    assert [model.id for model in client.models.list()] == ["auto", "bio", "gen", "lex"]
    with pytest.raises(NotFoundError):
        client.models.retrieve("../nope")
    with pytest.raises(APIError, match="messages"):
        client.chat.completions.create(model="auto", messages=[])


def every_answer_has_one_id(url: str) -> None:
    """Ray's proxy gives it one too."""
    assert httpx.get(url, headers={"x-request-id": "mine-1"}).headers.get_list("x-request-id") == ["mine-1"]
    (made,) = httpx.get(url).headers.get_list("x-request-id")
    assert len(made) > 30


@contextmanager
def continuous_load(client: OpenAI) -> Iterator[list[str | Exception]]:
    """Four clients that ask about law as fast as they can; yields their results."""
    results: list[str | Exception] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                raw = client.chat.completions.with_raw_response.create(model="auto", messages=LAW)
                results.append(f"{raw.headers['x-mom-expert']}: {raw.parse().choices[0].message.content}")
            except APIError as error:
                results.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield results
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def a_reload_drops_no_request(client: OpenAI, plan: DeployPlan, slices_root: Path) -> None:
    """One expert is new, one is gone, one has a successor; then a reload that cannot be."""
    gen = plan.catalogue.experts["gen"]
    with continuous_load(client) as results:
        write_slice(slices_root, "code", "computing")
        write_slice(slices_root, "lex2", "law", created="2026-06-01T00:00:00+00:00")
        shutil.rmtree(slices_root / "bio")
        new = lifecycle.reload(plan, plan.settings, DOMAINS)
        assert list(new.catalogue.experts) == ["code", "gen", "lex", "lex2"]
        assert new.catalogue.experts["gen"] == gen
        python: list[Any] = [{"role": "user", "content": "How do I sort a list in Python?"}]
        assert client.chat.completions.create(model="auto", messages=python).model == "code"
        with pytest.raises(NotFoundError):
            client.completions.create(model="bio", prompt="Once")
        (slices_root / "code" / manifest.FILE).write_text("{")
        with pytest.raises((RouterError, SliceError), match=r"slice\.json"):
            lifecycle.reload(new, new.settings.model_copy(update={"experts": ["code", "gen"]}), DOMAINS)
        assert client.chat.completions.create(model="auto", messages=python).model == "code"
        shutil.rmtree(slices_root / "code")
        no_log = new.settings.model_copy(update={"logs": Logs(file=Path("/proc/none/access.jsonl"))})
        with pytest.raises(ExpertFailed, match="/proc/none"):
            lifecycle.reload(new, no_log, DOMAINS)
        assert client.chat.completions.create(model="auto", messages=python).model == "code"
    assert [each for each in results if isinstance(each, Exception)] == []
    assert {*results} == {"lex: Often, but hard to prove.", "lex2: I am lex2."}
    assert len(results) > 20


def test_an_expert_that_cannot_be_opened_is_left_out_and_the_rest_serve(slices_root: Path) -> None:
    (slices_root / "lex" / REPLIES).write_text("not JSON")
    running = lifecycle.run(lifecycle.check(scripted(experts=["gen", "lex"]), DOMAINS))
    try:
        (why,) = running.failed.values()
        assert "lex" in running.failed and "\n" not in why
        client = OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
        raw = client.chat.completions.with_raw_response.create(model="auto", messages=LAW)
        assert raw.headers["x-mom-expert"] == "gen"
        assert "its expert lex did not start" in raw.headers["x-mom-decision"]
        with pytest.raises(NotFoundError):
            client.completions.create(model="lex", prompt="Once")
        (slices_root / "lex" / REPLIES).write_text("{}")
        mended = lifecycle.reload(running.plan, running.plan.settings, DOMAINS)
        assert list(mended.catalogue.experts) == ["gen", "lex"]
        raw = client.chat.completions.with_raw_response.create(model="auto", messages=LAW)
        assert raw.headers["x-mom-expert"] == "lex"
    finally:
        lifecycle.shutdown()


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"runtime": "router.nowhere:open"}, "runtime"),
        ({"runtime": "router.engine.scripted:nothing"}, "runtime"),
        ({"overrides": {"nobody": {}}}, "nobody"),
        ({"default": {"autoscaling": {"min_replicas": 3, "max_replicas": 1}}}, "autoscaling of bio"),
        ({"default": {"autoscaling": {"max_replicas": "many"}}}, "autoscaling of bio"),
    ],
)
def test_what_is_refused_before_anything_starts(
    overrides: dict[str, object], word: str, slices_root: Path
) -> None:
    with pytest.raises(BadSettings, match=word):
        lifecycle.check(scripted(**overrides), DOMAINS)


def test_traces_without_their_extra_are_refused(slices_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_PACKAGES", ("opentelemetry.sdk.trace", "opentelemetry.nowhere.to"))
    with pytest.raises(MissingExtra, match=r"opentelemetry\.nowhere.*otel"):
        lifecycle.check(scripted(logs={"traces": True}), DOMAINS)


def test_a_taken_port_is_refused(slices_root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadSettings, match="cannot listen"):
            lifecycle.check(scripted(port=taken.getsockname()[1]), DOMAINS)
