"""Failover of an expert that is dead, slow or overloaded, over HTTP."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from router.api.circuit_breaker import FAILURE_THRESHOLD, RECOVERY_SECONDS
from router.settings import Limits
from slices.errors import PromptTooLong
from slices.runtime import Piece, Sampling, Slot
from slices.runtimes.scripted import ScriptedRuntime

Serve = Callable[..., TestClient]
CHAT = "/v1/chat/completions"
LAW = [{"role": "user", "content": "Is a verbal contract enforceable?"}]
AUTO: dict[str, Any] = {"model": "auto", "messages": LAW}
NAMED = AUTO | {"model": "lex"}


class Dying(ScriptedRuntime):
    """Dies after `pieces` pieces, the first `times` times."""

    def __init__(self, pieces: int = 0, times: int = 10_000) -> None:
        super().__init__(default="one two three four")
        self.pieces, self.times, self.calls = pieces, times, 0

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        self.calls += 1
        for number, piece in enumerate(super().generate(prompt, sampling)):
            if number == self.pieces and self.calls <= self.times:
                raise ExpertDied
            yield piece


class ExpertDied(Exception):
    """Not one of ours: as a replica's process that is killed."""


class Silent(ScriptedRuntime):
    """Generates nothing until the gate is set."""

    def __init__(self, words: int = 0) -> None:
        super().__init__(default="one two three four")
        self.words, self.gate, self.calls = words, threading.Event(), 0

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        self.calls += 1
        for number, piece in enumerate(super().generate(prompt, sampling)):
            if number == self.words:
                self.gate.wait(20)
            yield piece


def samples(client: TestClient, name: str) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name}_total{{")]
    return {line.split("{")[1].split("}")[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def test_a_dead_expert_is_tried_again_and_nobody_notices(serve: Serve) -> None:
    lex = Dying(times=1)
    with serve(lex=lex) as client:
        answer = client.post(CHAT, json=AUTO)
        assert answer.status_code == 200 and answer.headers["x-mom-expert"] == "lex"
        assert answer.headers["x-mom-fallback"] == "false" and lex.calls == 2
        assert samples(client, "mom_failovers") == {'cause="retry",expert="lex"': 1.0}


@pytest.mark.parametrize("stream", [False, True])
def test_then_the_generalist_answers_and_the_headers_say_so(serve: Serve, stream: bool) -> None:
    lex, gen = Dying(), ScriptedRuntime(default="I am gen.")
    with serve(lex=lex, gen=gen) as client:
        answer = client.post(CHAT, json=AUTO | {"stream": stream})
        assert answer.status_code == 200 and lex.calls == 2
        assert (answer.headers["x-mom-expert"], answer.headers["x-mom-fallback"]) == ("gen", "true")
        assert answer.headers["x-mom-decision"] == "lex did not answer, so the generalist answers"
        assert "gen" in answer.text and "lex" not in answer.text
        assert "start_of_turn" not in gen.seen[0], "lex has a chat template, the generalist none"
        assert samples(client, "mom_failovers") == {
            'cause="retry",expert="lex"': 1.0,
            'cause="ExpertFailed",expert="lex"': 1.0,
        }


def test_an_expert_asked_by_name_is_never_replaced(serve: Serve) -> None:
    with serve(lex=Dying()) as client:
        answer = client.post(CHAT, json=NAMED)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "expert_failed")
        assert answer.headers["retry-after"] == "1"
    lex, gen = Dying(times=1), ScriptedRuntime()
    with serve(lex=lex, gen=gen) as client:
        assert client.post(CHAT, json=NAMED).headers["x-mom-expert"] == "lex"
        assert lex.calls == 2 and gen.seen == [], "but is retried"


def test_after_the_first_piece_nobody_else_is_asked(serve: Serve) -> None:
    lex, gen = Dying(pieces=2), ScriptedRuntime()
    with serve(lex=lex, gen=gen) as client:
        lines = client.post(CHAT, json=AUTO | {"stream": True}).text.strip().split("\n\n")
        events = [json.loads(line.removeprefix("data: ")) for line in lines]
        contents = [event["choices"][0]["delta"].get("content", "") for event in events if "choices" in event]
        assert "".join(contents) == "one two"
        assert events[-1]["error"]["code"] == "expert_failed"
        assert lex.calls == 1 and gen.seen == []
        whole = client.post(CHAT, json=AUTO)
        assert (whole.status_code, whole.headers["x-mom-expert"]) == (200, "gen"), "nothing had gone out"
        assert "one two" not in whole.text and lex.calls == 3


def test_a_slow_expert_is_given_up(serve: Serve) -> None:
    lex = Silent()
    with serve(Limits(first_token_seconds=0.2), lex=lex) as client:
        begun = time.monotonic()
        answer = client.post(CHAT, json=AUTO)
        assert answer.headers["x-mom-decision"] == "lex is too slow, so the generalist answers"
        assert time.monotonic() - begun < 5 and lex.calls == 1, "it is not retried"
        line = client.post(CHAT, json=NAMED)
        assert (line.status_code, line.json()["error"]["code"]) == (503, "overloaded"), "it waits in line"
        assert int(line.headers["retry-after"]) >= 1
        lex.gate.set()
        assert client.post(CHAT, json=AUTO).headers["x-mom-expert"] == "lex"


def test_a_slow_expert_that_was_named_is_reported(serve: Serve) -> None:
    lex = Silent()
    with serve(Limits(first_token_seconds=0.2), lex=lex) as client:
        named = client.post(CHAT, json=NAMED)
        assert (named.status_code, named.json()["error"]["code"]) == (504, "expert_timeout")
        assert int(named.headers["retry-after"]) >= 1
        lex.gate.set()


def test_an_overloaded_expert_is_not_asked_again(serve: Serve) -> None:
    lex = Silent()
    with serve(lex=lex, max_queued_requests=1) as client:
        waiting = [threading.Thread(target=client.post, args=(CHAT,), kwargs={"json": NAMED}) for _ in "ab"]
        for thread in waiting:
            thread.start()
        deadline = time.monotonic() + 10
        while 'mom_num_requests_running{expert="lex"} 2.0' not in client.get("/metrics").text:
            assert time.monotonic() < deadline
        assert client.post(CHAT, json=NAMED).status_code == 503
        assert client.post(CHAT, json=AUTO).headers["x-mom-expert"] == "gen"
        lex.gate.set()
        for thread in waiting:
            thread.join(20)
        assert not any("retry" in key for key in samples(client, "mom_failovers"))


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_ends_at_its_deadline(serve: Serve, stream: bool) -> None:
    lex = Silent(words=2)
    with serve(Limits(deadline_seconds=0.4), lex=lex) as client:
        answer = client.post(CHAT, json=AUTO | {"stream": stream})
        if stream:
            assert '"deadline_exceeded"' in answer.text.strip().rsplit("\n\n", 1)[1]
        else:
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
        lex.gate.set()
        assert client.post(CHAT, json=AUTO).headers["x-mom-expert"] == "lex"


def test_an_expert_that_fails_again_and_again_is_left_alone(serve: Serve) -> None:
    lex = Dying()
    with serve(lex=lex) as client:
        while lex.calls < FAILURE_THRESHOLD:
            assert client.post(CHAT, json=AUTO).headers["x-mom-expert"] == "gen"
        calls = lex.calls
        answer = client.post(CHAT, json=AUTO)
        assert answer.headers["x-mom-expert"] == "gen" and lex.calls == calls
        named = client.post(CHAT, json=NAMED)
        assert named.status_code == 503 and 1 <= int(named.headers["retry-after"]) <= RECOVERY_SECONDS


def test_an_expert_that_dies_again_and_again_amid_its_answers_is_left_alone(serve: Serve) -> None:
    lex = Dying(pieces=2)
    with serve(lex=lex) as client:
        for number in range(FAILURE_THRESHOLD):
            assert '"error"' in client.post(CHAT, json=AUTO | {"stream": True}).text
            assert lex.calls == number + 1
        answer = client.post(CHAT, json=AUTO | {"stream": True})
        assert (answer.headers["x-mom-expert"], lex.calls) == ("gen", FAILURE_THRESHOLD)


def test_a_request_at_fault_is_not_an_experts_failure(serve: Serve) -> None:
    class Choosy(ScriptedRuntime):
        def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
            raise PromptTooLong("the prompt has 9 tokens, but the context holds 8")

    with serve(lex=Choosy()) as client:
        assert client.post(CHAT, json=AUTO).status_code == 400
        assert samples(client, "mom_failovers") == {}


class OneBadSlot:
    """Refuses every other prompt; takes the rest and writes nothing."""

    max_num_seqs = 2

    def __init__(self) -> None:
        self.begun = 0

    def begin(self, prompt: str, sampling: Sampling) -> Slot:
        self.begun += 1
        if self.begun % 2:
            raise ExpertDied
        return Slot(0, 3)

    def step(self) -> Sequence[tuple[int, Piece]]:
        time.sleep(0.01)
        return []

    def abort(self, slot: int) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_choice_that_fails_while_another_waits(serve: Serve) -> None:
    """It was a 500: the other choice's stream was closed while a task still read it."""
    with serve(batcher=OneBadSlot) as client:
        answer = client.post(CHAT, json=NAMED | {"n": 2})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "expert_failed")


class Steady(ScriptedRuntime):
    """Writes without a pause, half a second in all; notes when an answer is given up."""

    def __init__(self, words: int = 10) -> None:
        super().__init__()
        self.words, self.freed = words, threading.Event()

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        try:
            for _ in range(self.words):
                time.sleep(0.05)
                yield Piece("x")
            yield Piece("", 0, "stop")
        finally:
            self.freed.set()


@pytest.mark.parametrize("stream", [False, True])
def test_a_choice_in_line_behind_its_own_is_not_slow(serve: Serve, stream: bool) -> None:
    """It was a 504 for every `n` over the places of an expert whose answers take longer than its patience."""
    with serve(Limits(first_token_seconds=0.3), lex=Steady()) as client:
        answer = client.post(CHAT, json=NAMED | {"n": 2, "stream": stream})
        assert answer.status_code == 200 and "error" not in answer.text
        assert answer.text.count('"finish_reason":"stop"') + answer.text.count('"finish_reason": "stop"') == 2


class Pondering(ScriptedRuntime):
    """Says something after a pause, and then all."""

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        time.sleep(0.6)
        yield from super().generate(prompt, sampling)


def test_who_came_late_to_an_expert_does_not_find_it_slow(serve: Serve) -> None:
    """It was a 504, and a failure to the breaker, for who waited most of the expert's patience in line."""
    with serve(Limits(first_token_seconds=1.0), lex=Pondering(default="one")) as client:
        with ThreadPoolExecutor(2) as callers:
            both = [callers.submit(client.post, CHAT, json=NAMED) for _ in range(2)]
        assert [each.result().status_code for each in both] == [200, 200]


def test_the_deadline_frees_the_expert(serve: Serve) -> None:
    lex = Steady(words=10_000)
    with serve(Limits(deadline_seconds=0.3), lex=lex) as client:
        assert client.post(CHAT, json=NAMED).status_code == 504
        assert lex.freed.wait(5)


def test_a_generalist_that_cannot_be_asked_is_not_the_callers_fault(serve: Serve, slices_root: Path) -> None:
    """It was a 400 about messages that the expert chosen would have taken."""
    (slices_root / "gen" / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    with serve(lex=Dying()) as client:
        answer = client.post(CHAT, json=AUTO)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "expert_failed")
