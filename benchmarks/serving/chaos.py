"""Break a running service on purpose, and count what its callers notice.

    python -m benchmarks.serving.chaos law-words biochem-words general-all

Everything is real: `mom serve` on Ray, slices in $MOM_HOME (the last one the generalist), HTTP clients. Kills
only replicas of the service that it started, by pid. `--only` names some of the parts.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from shutil import copytree
from statistics import median
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from benchmarks.paths import RESULTS
from benchmarks.serving.chaos_clients import CHAT, DEADLINE, QUESTION, Tally, ask, asking, body
from benchmarks.serving.load_client import client
from benchmarks.serving.process import Service, below, resident, serving
from slices import home, manifest

OUT = RESULTS / "chaos.json"
CLIENTS = 8


@dataclass(frozen=True)
class Stage:
    """What a part works on."""

    service: Service
    expert: str
    args: argparse.Namespace


def replicas(service: Service, expert: str) -> list[int]:
    """Pids of an expert's replicas."""
    found = []
    for pid in below(service.pid):
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            if line.startswith(f"ray::ServeReplica:mom-{expert}:"):
                found.append(pid)
    return found


async def kills(stage: Stage) -> dict[str, Any]:
    """kill -9 a replica again and again, under clients that ask its expert."""
    recoveries = []
    async with asking(stage.service.url, CLIENTS, body()) as tally:
        for _ in range(stage.args.kills):
            await asyncio.sleep(2)
            pid, *_ = replicas(stage.service, stage.expert)  # none would be an error of this script
            os.kill(pid, signal.SIGKILL)
            begun = perf_counter()
            async with client(stage.service.url) as http:
                while await ask(http, Tally.new(), body(stage.expert, 1)) != 200:
                    if perf_counter() - begun > DEADLINE:
                        break
                    await asyncio.sleep(0.1)
            recoveries.append(perf_counter() - begun)
    told = {"median": median(recoveries), "max": max(recoveries)}
    return {"kills": len(recoveries), **tally.to_json(), "recovery_seconds": told}


async def overload(stage: Stage) -> dict[str, Any]:
    """Ten times as many clients as usual."""
    before = resident(stage.service.pid)
    async with asking(stage.service.url, 10 * CLIENTS, body(tokens=32)) as tally:
        await asyncio.sleep(stage.args.seconds)
    grown = resident(stage.service.pid) / before - 1
    return {"seconds": stage.args.seconds, **tally.to_json(), "memory_before": before, "memory_growth": grown}


async def disconnects(stage: Stage) -> dict[str, Any]:
    """Clients that hang up after the first piece of a long answer."""
    left, gate = 0, asyncio.Semaphore(CLIENTS)

    async with client(stage.service.url) as http:

        async def one() -> None:
            nonlocal left
            async with gate:
                said = body(tokens=2000, stream=True)
                async with http.stream("POST", CHAT, json=said, timeout=DEADLINE) as answer:
                    async for line in answer.aiter_lines():
                        if '"content": "' in line and '"content": ""' not in line:
                            left += 1
                            return

        await asyncio.gather(*(one() for _ in range(stage.args.disconnects)))
        begun = perf_counter()
        while (running := await at_work(http)) and perf_counter() - begun < 10:
            await asyncio.sleep(0.1)
        freed = perf_counter() - begun
        status = await ask(http, Tally.new(), body())
    return {"hung_up": left, "answers_left_running": running, "seconds_to_be_free": freed, "then": status}


async def at_work(http: httpx.AsyncClient) -> int:
    """Answers that the experts are at."""
    told = (await http.get("/experts", timeout=DEADLINE)).json()["experts"]
    return sum(each["running"] for each in told)


async def slow_loris(stage: Stage) -> dict[str, Any]:
    """Connections that send their request a byte at a time, beside one that asks as people do."""
    where = urlsplit(stage.service.url)
    sockets = [socket.create_connection((where.hostname, where.port), timeout=5) for _ in range(100)]
    before = await route_ms(stage, None)
    try:
        during = await route_ms(stage, partial(drip, sockets))
    finally:
        for each in sockets:
            each.close()
    return {"connections": len(sockets), "route_ms_before": before, "route_ms_during": during}


def drip(connections: Sequence[socket.socket]) -> None:
    """Send one more byte of a header that never ends on each connection."""
    for connection in connections:
        with suppress(OSError):
            connection.send(b"P")


async def route_ms(stage: Stage, meanwhile: Callable[[], Any] | None) -> float:
    """Milliseconds of a routing decision, the median of 50."""
    taken = []
    async with client(stage.service.url) as http:
        for number in range(50):
            if meanwhile is not None:
                meanwhile()
            begun = perf_counter()
            (await http.post("/route", json={"query": f"{QUESTION} {number}"})).raise_for_status()
            taken.append(1000 * (perf_counter() - begun))
    return median(taken)


async def bad_reload(stage: Stage) -> dict[str, Any]:
    """A serve.yaml that is none, and one that names an expert that is not there."""
    path, good = stage.service.config, stage.service.config.read_text(encoding="utf-8")
    said = yaml.safe_load(good)
    async with asking(stage.service.url, 2, body()) as tally:
        for bad in ("{", yaml.safe_dump(said | {"experts": ["nobody"]}), yaml.safe_dump({"nonsense": 1})):
            path.write_text(bad, encoding="utf-8")
            os.kill(stage.service.pid, signal.SIGHUP)
            await asyncio.sleep(4)
        path.write_text(good, encoding="utf-8")
        os.kill(stage.service.pid, signal.SIGHUP)
        await asyncio.sleep(8)
        async with client(stage.service.url) as http:
            experts = [each["name"] for each in (await http.get("/experts")).json()["experts"]]
    return {**tally.to_json(), "experts_as_before": sorted(experts) == sorted(said["experts"])}


def corrupted(args: argparse.Namespace) -> dict[str, Any]:
    """A slice whose file was cut short: the rest serve."""
    with tempfile.TemporaryDirectory() as root:
        for name in args.slices:
            copytree(home.slices_home() / name, Path(root) / name)
        card = manifest.read(Path(root) / args.slices[0])
        for each in card.quantized:
            file = Path(root) / args.slices[0] / each.file
            os.truncate(file, file.stat().st_size // 2)
        with serving(args.slices, slices=root, type=args.type, default=capacity(args)) as service:
            answer = httpx.post(service.url + CHAT, json=body(), timeout=DEADLINE)
            names = [each["name"] for each in httpx.get(service.url + "/experts").json()["experts"]]
    return {
        "status": answer.status_code,
        "answered_by": answer.headers.get("x-mom-expert"),
        "because": answer.headers.get("x-mom-decision"),
        "experts_left": names,
    }


PARTS: dict[str, Callable[[Stage], Coroutine[Any, Any, dict[str, Any]]]] = {
    "kills": kills,
    "disconnects": disconnects,
    "slow_loris": slow_loris,
    "bad_reload": bad_reload,
    "overload": overload,
}


def capacity(args: argparse.Namespace) -> dict[str, Any]:
    """Of each expert."""
    return {"max_num_seqs": 4, "max_model_len": 1024, "threads": args.threads}


def keep(path: Path, found: dict[str, Any], part: str, told: dict[str, Any]) -> None:
    """Write what came of a part, with all before it."""
    found["parts"][part] = told
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(part, json.dumps(told), file=sys.stderr, flush=True)


def main() -> None:
    """Run the parts one after another on one service, and write what came of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slices", nargs="+", help="in $MOM_HOME: the first is asked, the last generalist")
    parser.add_argument("--only", choices=[*PARTS, "corrupted"], action="append")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="of overload")
    parser.add_argument("--disconnects", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    args = parser.parse_args()
    wanted = args.only or [*PARTS, "corrupted"]
    old = json.loads(args.output.read_text(encoding="utf-8")) if args.output.is_file() else {"parts": {}}
    found = {**old, "made": datetime.now(UTC).isoformat(timespec="seconds"), "cpus": os.cpu_count()}
    found["versions"] = {each: version(each) for each in ("llama-cpp-python", "ray", "fastapi")}
    limits = {"deadline_seconds": DEADLINE, "first_token_seconds": 20}
    if any(each in PARTS for each in wanted):
        with serving(args.slices, type=args.type, default=capacity(args), limits=limits) as service:
            stage = Stage(service, args.slices[0], args)
            for name in args.slices:  # so that their memory is not counted as growth
                httpx.post(service.url + CHAT, json=body(name), timeout=DEADLINE).raise_for_status()
            for name in (each for each in PARTS if each in wanted):
                keep(args.output, found, name, asyncio.run(PARTS[name](stage)))
    if "corrupted" in wanted:
        keep(args.output, found, "corrupted", corrupted(args))


if __name__ == "__main__":
    main()
