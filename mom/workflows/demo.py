"""`mom demo`: the whole road on the embedded parent, from checkpoint to routed answers.

Three experts that keep all layers and 32,768 vocabulary rows, and the uncut parent as the generalist,
each quantized. What exists already is kept, so a second run is quick.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from mom.display import console
from mom.workflows.compare import measure_bits
from slices import demo_model, manifest
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.errors import RunFailed
from slices.home import home, slices_home
from slices.quant.quantize import quantize

TYPE = "Q4_K_M"
REQUESTS = (
    *(
        SliceRequest(domain=name, layers="all", model=demo_model.NAME, vocab="32768")
        for name in ("biochem", "law", "computing")
    ),
    SliceRequest(domain="general", layers="all", model=demo_model.NAME, name="generalist"),
)
NOT_COMPARED = (
    "the demo compares with no plain quant; mom quantize {name} --type {type} --force --compare always does"
)
QUESTIONS = (
    "How does an enzyme lower the activation energy of a reaction?",
    "What makes a contract legally binding?",
    "How do I read a text file line by line in Python?",
)
EMBEDDER_LICENCE = "The embedder all-MiniLM-L6-v2 is under the Apache License 2.0."
_START_SECONDS = 180


@dataclass(frozen=True)
class Answer:
    """An answer of the service, with the expert that gave it."""

    question: str
    expert: str
    confidence: float
    reason: str
    text: str


def build() -> None:
    """Make and quantize the demo's slices, as far as they are not there."""
    if not (embedded_folder() / "config.json").is_file():
        console.warn(EMBEDDER_LICENCE)
    demo_model.ensure()
    for request in REQUESTS:
        folder = slices_home() / request.slice_name
        if not (folder / manifest.FILE).is_file():
            with console.progress_bar() as report:
                made = cut(request, report)
            console.out.print(f"cut {made.name}: {made.vocabulary:,} rows, {console.size(made.bytes)}")
        if not any(each.type == TYPE for each in manifest.read(folder).quantized):
            _quantize(folder)


def embedded_folder() -> Path:
    """Where the embedded parent is, or will be."""
    return home() / "models" / demo_model.NAME


def _quantize(folder: Path) -> None:
    with console.progress_bar() as report:
        done = quantize(folder, TYPE, progress=report)
        measure_bits(folder, done.path.name, NOT_COMPARED.format(name=folder.name, type=TYPE), report)
    console.out.print(f"quantized {folder.name}: {done.type}, {console.size(done.bytes)}")


def serve_and_ask(check: bool) -> None:
    """Start `mom serve` on its own, ask the questions, and leave it running, or stop it if `check`."""
    port = _free_port(8000)
    url = f"http://127.0.0.1:{port}"
    log = home() / "serve.log"
    process = _start(port, log)
    try:
        _wait(process, url, log)
        for question in QUESTIONS:
            show(_ask(url, question))
    except BaseException:
        _stop(process)
        raise
    if check:
        _stop(process)
        console.out.print("the service was stopped again")
        return
    console.out.print(
        f"The service keeps running at {url} (OpenAI API under {url}/v1; log in {log}).\n"
        f"Stop it with: kill {process.pid}",
        soft_wrap=True,
    )


def show(answer: Answer) -> None:
    """Question, who answered and why, and the text."""
    console.out.print(f"\n> {answer.question}", style="bold", markup=False)
    console.out.print(
        f"{answer.expert} ({answer.confidence:.2f}): {answer.reason}", style="cyan", markup=False
    )
    console.out.print(answer.text.strip() or "(an empty answer)", markup=False)


def _free_port(wanted: int) -> int:
    """`wanted` if nothing listens there, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise RunFailed("no free port on 127.0.0.1")


def _start(port: int, log: Path) -> "subprocess.Popen[bytes]":
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mom", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Until `/health` says so; a service that ended first is reported with the end of its log."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise RunFailed(f"the service did not start: {' '.join(last) or 'it gave no reason'}")
        if _healthy(url):
            return
        time.sleep(0.5)
    raise RunFailed(f"the service was not ready after {_START_SECONDS} s; its log is {log}")


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _ask(url: str, question: str) -> Answer:
    body = {"model": "auto", "messages": [{"role": "user", "content": question}], "max_tokens": 80, "seed": 1}
    decision = _post(f"{url}/route", {"query": question})
    answer = _post(f"{url}/v1/chat/completions", body | {"temperature": 0.3})
    text = answer["choices"][0]["message"]["content"]
    return Answer(
        question=question,
        expert=answer["model"],
        confidence=decision["confidence"],
        reason=decision["reason"],
        text=text,
    )


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        response = httpx.post(url, json=body, timeout=120, trust_env=False)  # no proxy: it is on this machine
        answer: dict[str, Any] = response.raise_for_status().json()
    except (httpx.HTTPError, json.JSONDecodeError) as error:
        raise RunFailed(f"{url} gave no answer: {error}") from None
    return answer


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the service and wait for it; only the process that we started."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
