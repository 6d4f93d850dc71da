"""Clients that people use, unchanged, against the service on a real socket with a real model in llama.cpp."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient

from slices.export import export
from slices.runtime import Capacity, Sampling, Slot
from slices.runtimes.llama_batcher import LlamaBatcher
from tests.router.conftest import listening
from tests.slices.gguf_fixtures import FULL, SLIDING, write_gemma3

WORD = "root ::= [a-z]{3,9}"
LAW = "Is a verbal contract enforceable?"
HI = [{"role": "user", "content": LAW}]
SCHEMA = {
    "title": "Cat",
    "description": "A cat.",
    "type": "object",
    "properties": {"old": {"type": "boolean"}},
    "required": ["old"],
    "additionalProperties": False,
}


class Brief(LlamaBatcher):
    """A pico left alone writes on for ever: unless asked for another form, this one says a word and ends.

    In another form its weights are no less random: seeded, since now and then a string of JSON has no end.
    """

    def begin(self, prompt: str, sampling: Sampling) -> Slot:
        seed = 0 if sampling.seed is None else sampling.seed
        return super().begin(prompt, replace(sampling, grammar=sampling.grammar or WORD, seed=seed))


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_gemma3(tmp_path_factory.mktemp("pico") / "pico", [SLIDING, FULL])
    return export(folder, folder / "pico.gguf")


@pytest.fixture
def url(serve: Callable[..., TestClient], gguf: Path) -> Iterator[str]:
    """The address of a running service."""
    capacity = Capacity(max_num_seqs=4, max_model_len=2048, threads=1)
    with listening(serve(batcher=partial(Brief, gguf, capacity))) as address:
        yield address


def test_openai(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    whole = client.chat.completions.create(model="auto", messages=HI, n=2, logprobs=True, top_logprobs=2)  # type: ignore[arg-type]
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.usage and whole.usage.completion_tokens
    stream = client.chat.completions.create(model="lex", messages=HI, stream=True, seed=4)  # type: ignore[arg-type]
    last = [chunk.choices[0] for chunk in stream if chunk.choices][-1]  # type: ignore[union-attr]
    assert last.finish_reason == "stop"
    text = client.completions.create(model="bio", prompt="A cell", max_tokens=3, logprobs=1)
    logprobs = text.choices[0].logprobs
    assert logprobs and logprobs.tokens and "".join(logprobs.tokens) == text.choices[0].text
    assert {model.id for model in client.models.list()} == {"auto", "bio", "gen", "lex"}
    with pytest.raises(openai.BadRequestError, match="top_logprobs"):
        client.chat.completions.create(model="auto", messages=HI, top_logprobs=2)  # type: ignore[arg-type]
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.chat.completions.create(model="nobody", messages=HI)  # type: ignore[arg-type]


def test_langchain(url: str) -> None:
    from langchain_openai import ChatOpenAI

    chat: Any = ChatOpenAI(model="auto", base_url=f"{url}/v1", api_key="none", max_retries=0, seed=1)  # type: ignore[arg-type]
    answer = chat.invoke(LAW)
    assert answer.response_metadata["model_name"] == "lex"
    assert answer.usage_metadata["input_tokens"] > 0
    streamed = "".join(chunk.text for chunk in chat.stream(LAW))
    assert streamed == answer.text
    found = chat.with_structured_output(SCHEMA, method="json_schema").invoke(LAW)
    assert isinstance(found["old"], bool)
    called = chat.bind_tools([SCHEMA], tool_choice="required").invoke(LAW)
    assert called.tool_calls[0]["name"] == "Cat" and isinstance(called.tool_calls[0]["args"]["old"], bool)


def test_llm(url: str, tmp_path: Path) -> None:
    models = [{"model_id": "mom", "model_name": "auto", "api_base": f"{url}/v1"}]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models), encoding="utf-8")
    command = [sys.executable, "-m", "llm", "-m", "mom", "--key", "none", "--no-log", LAW]
    ran = subprocess.run(
        command,
        env=os.environ | {"LLM_USER_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert ran.returncode == 0, ran.stderr
    assert 3 <= len(ran.stdout.strip()) <= 9


def test_llm_comply(url: str) -> None:
    """Its suite for OpenAI's chat API, without images and reasoning, which the experts have none of."""
    options = ["--format", "openai-chat", "-u", f"{url}/v1", "-k", "none", "-m", "auto", "--json"]
    command = [sys.executable, "-m", "llm_comply.cli", *options]
    listed = subprocess.run([*command, "--list"], capture_output=True, text=True, timeout=60).stdout
    wanted = [
        word
        for word in listed.split()
        if word.startswith("chat-") and "image" not in word and "reason" not in word
    ]
    assert len(wanted) >= 6, listed
    ran = subprocess.run([*command, "-f", ",".join(wanted)], capture_output=True, text=True, timeout=100)
    report = json.loads(ran.stdout)
    assert ran.returncode == 0, ran.stdout
    assert report["summary"]["failed"] == 0 and report["summary"]["passed"] == len(wanted), ran.stdout
