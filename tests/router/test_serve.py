"""The real thing: Ray Serve on a free port, asked by the openai client; and what is refused before."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import APIError, NotFoundError, OpenAI

from router import serve
from router.errors import BadSettings, ExpertFailed
from router.scripted import REPLIES
from router.settings import Settings
from tests.router.router_world import DOMAINS

# Ray 2.60 under pydantic 2.14.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scripted(**more: object) -> Settings:
    fields = {"port": free_port(), "embedder": "hash", "runtime": "router.scripted:open_runtime"}
    return Settings.model_validate(fields | more)


@pytest.fixture
def url(slices_root: Path) -> Iterator[str]:
    (slices_root / "lex" / REPLIES).write_text(json.dumps({"verbal": "Often, but hard to prove."}))
    plan = serve.check(scripted(), DOMAINS)
    try:
        yield serve.run(plan)
    finally:
        serve.shutdown()


def test_the_openai_client_gets_the_right_expert(url: str) -> None:
    """One start of Ray for all of it, since a start takes ten seconds."""
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)
    law = [{"role": "user", "content": "Is a verbal contract enforceable?"}]

    raw = client.chat.completions.with_raw_response.create(model="auto", messages=law)
    assert raw.headers["x-mom-expert"] == "lex"
    answer = raw.parse()
    assert answer.choices[0].message.content == "Often, but hard to prove."
    assert answer.usage.completion_tokens == 5

    stream = client.chat.completions.create(model="auto", messages=law, stream=True, stop=["hard"])
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


def test_an_expert_that_cannot_be_opened_is_named_and_nothing_stays(slices_root: Path) -> None:
    import ray

    (slices_root / "lex" / REPLIES).write_text("not JSON")
    with pytest.raises(ExpertFailed, match="lex") as caught:
        serve.run(serve.check(scripted(experts=["gen", "lex"]), DOMAINS))
    assert "\n" not in str(caught.value)
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"runtime": "router.nowhere:open"}, "runtime"),
        ({"runtime": "router.scripted:nothing"}, "runtime"),
        ({"overrides": {"nobody": {}}}, "nobody"),
        ({"default": {"autoscaling": {"min_replicas": 3, "max_replicas": 1}}}, "autoscaling of bio"),
        ({"default": {"autoscaling": {"max_replicas": "many"}}}, "autoscaling of bio"),
    ],
)
def test_what_is_refused_before_anything_starts(
    said: dict[str, object], word: str, slices_root: Path
) -> None:
    with pytest.raises(BadSettings, match=word):
        serve.check(scripted(**said), DOMAINS)


def test_a_taken_port_is_refused(slices_root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadSettings, match="cannot listen"):
            serve.check(scripted(port=taken.getsockname()[1]), DOMAINS)
