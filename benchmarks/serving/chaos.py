"""Fault injection: break a running service and count the responses of its clients.

    python -m benchmarks.serving.chaos law-words biochem-words general-all

Everything is real: `mom serve` on Ray, slices in $MOM_HOME (the last one the generalist), HTTP clients. Kills
only replicas of the service that it started, by pid. `--only` selects parts.
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
from benchmarks.serving.chaos_clients import CHAT, DEADLINE, QUESTION, ResponseCounts, ask, body, load
from benchmarks.serving.load_client import client
from benchmarks.serving.process import Service, process_tree, resident_bytes, serving
from slices import home, manifest

OUT = RESULTS / "chaos.json"
CLIENTS = 8


@dataclass(frozen=True)
class Setup:
    """The service, the expert and the options of a part."""

    service: Service
    expert: str
    args: argparse.Namespace


def replicas(service: Service, expert: str) -> list[int]:
    """Pids of an expert's replicas."""
    pids = []
    for pid in process_tree(service.pid):
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            if line.startswith(f"ray::ServeReplica:mom-{expert}:"):
                pids.append(pid)
    return pids


async def kills(setup: Setup) -> dict[str, Any]:
    """kill -9 of a replica again and again, under load on its expert."""
    recoveries = []
    async with load(setup.service.url, CLIENTS, body()) as counts:
        for _ in range(setup.args.kills):
            await asyncio.sleep(2)
            pid, *_ = replicas(setup.service, setup.expert)  # none would be an error of this script
            os.kill(pid, signal.SIGKILL)
            start = perf_counter()
            async with client(setup.service.url) as http:
                while await ask(http, ResponseCounts.new(), body(setup.expert, 1)) != 200:
                    if perf_counter() - start > DEADLINE:
                        break
                    await asyncio.sleep(0.1)
            recoveries.append(perf_counter() - start)
    recovery = {"median": median(recoveries), "max": max(recoveries)}
    return {"kills": len(recoveries), **counts.to_json(), "recovery_seconds": recovery}


async def overload(setup: Setup) -> dict[str, Any]:
    """Ten times as many clients as in the other parts."""
    before = resident_bytes(setup.service.pid)
    async with load(setup.service.url, 10 * CLIENTS, body(tokens=32)) as counts:
        await asyncio.sleep(setup.args.seconds)
    growth = resident_bytes(setup.service.pid) / before - 1
    return {
        "seconds": setup.args.seconds,
        **counts.to_json(),
        "memory_bytes_before": before,
        "memory_growth": growth,
    }


async def disconnects(setup: Setup) -> dict[str, Any]:
    """Clients that disconnect after the first chunk of a long answer."""
    disconnected, semaphore = 0, asyncio.Semaphore(CLIENTS)

    async with client(setup.service.url) as http:

        async def one() -> None:
            nonlocal disconnected
            async with semaphore:
                request = body(tokens=2000, stream=True)
                async with http.stream("POST", CHAT, json=request, timeout=DEADLINE) as response:
                    async for line in response.aiter_lines():
                        if '"content": "' in line and '"content": ""' not in line:
                            disconnected += 1
                            return

        await asyncio.gather(*(one() for _ in range(setup.args.disconnects)))
        start = perf_counter()
        while (running := await running_requests(http)) and perf_counter() - start < 10:
            await asyncio.sleep(0.1)
        idle = perf_counter() - start
        status = await ask(http, ResponseCounts.new(), body())
    return {
        "disconnected": disconnected,
        "running_afterwards": running,
        "seconds_to_idle": idle,
        "status_afterwards": status,
    }


async def running_requests(http: httpx.AsyncClient) -> int:
    """The number of running requests of all experts."""
    experts = (await http.get("/experts", timeout=DEADLINE)).json()["experts"]
    return sum(each["running"] for each in experts)


async def slow_loris(setup: Setup) -> dict[str, Any]:
    """Slowloris: connections that send their request a byte at a time, beside a normal client."""
    where = urlsplit(setup.service.url)
    sockets = [socket.create_connection((where.hostname, where.port), timeout=5) for _ in range(100)]
    before = await route_ms(setup, None)
    try:
        during = await route_ms(setup, partial(drip, sockets))
    finally:
        for each in sockets:
            each.close()
    return {"connections": len(sockets), "route_ms_before": before, "route_ms_during": during}


def drip(connections: Sequence[socket.socket]) -> None:
    """Send one more byte of a header that never ends on each connection."""
    for connection in connections:
        with suppress(OSError):
            connection.send(b"P")


async def route_ms(setup: Setup, meanwhile: Callable[[], Any] | None) -> float:
    """Milliseconds of a routing request, the median of 50."""
    taken = []
    async with client(setup.service.url) as http:
        for number in range(50):
            if meanwhile is not None:
                meanwhile()
            start = perf_counter()
            (await http.post("/route", json={"query": f"{QUESTION} {number}"})).raise_for_status()
            taken.append(1000 * (perf_counter() - start))
    return median(taken)


async def bad_reload(setup: Setup) -> dict[str, Any]:
    """Reloads of a serve.yaml that is not YAML, of an unknown expert, and of an unknown key."""
    path, good = setup.service.config, setup.service.config.read_text(encoding="utf-8")
    settings = yaml.safe_load(good)
    async with load(setup.service.url, 2, body()) as counts:
        for bad in ("{", yaml.safe_dump(settings | {"experts": ["nobody"]}), yaml.safe_dump({"nonsense": 1})):
            path.write_text(bad, encoding="utf-8")
            os.kill(setup.service.pid, signal.SIGHUP)
            await asyncio.sleep(4)
        path.write_text(good, encoding="utf-8")
        os.kill(setup.service.pid, signal.SIGHUP)
        await asyncio.sleep(8)
        async with client(setup.service.url) as http:
            experts = [each["name"] for each in (await http.get("/experts")).json()["experts"]]
    return {**counts.to_json(), "experts_unchanged": sorted(experts) == sorted(settings["experts"])}


def corrupted(args: argparse.Namespace) -> dict[str, Any]:
    """A slice whose file is truncated: the other experts serve."""
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
        "decision": answer.headers.get("x-mom-decision"),
        "experts_served": names,
    }


PARTS: dict[str, Callable[[Setup], Coroutine[Any, Any, dict[str, Any]]]] = {
    "kills": kills,
    "disconnects": disconnects,
    "slow_loris": slow_loris,
    "bad_reload": bad_reload,
    "overload": overload,
}


def capacity(args: argparse.Namespace) -> dict[str, Any]:
    """The capacity of each expert."""
    return {"max_num_seqs": 4, "max_model_len": 1024, "threads": args.threads}


def save(path: Path, results: dict[str, Any], part: str, result: dict[str, Any]) -> None:
    """Write the result of a part, with those before it."""
    results["parts"][part] = result
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(part, json.dumps(result), file=sys.stderr, flush=True)


def main() -> None:
    """Run the parts one after another on one service, and write the result of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "slices", nargs="+", help="in $MOM_HOME: the tested expert first, the generalist last"
    )
    parser.add_argument("--only", choices=[*PARTS, "corrupted"], action="append")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="duration of the overload")
    parser.add_argument("--disconnects", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    args = parser.parse_args()
    parts = args.only or [*PARTS, "corrupted"]
    old = json.loads(args.output.read_text(encoding="utf-8")) if args.output.is_file() else {"parts": {}}
    results = {**old, "made": datetime.now(UTC).isoformat(timespec="seconds"), "cpus": os.cpu_count()}
    results["versions"] = {each: version(each) for each in ("llama-cpp-python", "ray", "fastapi")}
    limits = {"deadline_seconds": DEADLINE, "first_token_seconds": 20}
    if any(each in PARTS for each in parts):
        with serving(args.slices, type=args.type, default=capacity(args), limits=limits) as service:
            setup = Setup(service, args.slices[0], args)
            for name in args.slices:  # so that their memory is not counted as growth
                httpx.post(service.url + CHAT, json=body(name), timeout=DEADLINE).raise_for_status()
            for name in (each for each in PARTS if each in parts):
                save(args.output, results, name, asyncio.run(PARTS[name](setup)))
    if "corrupted" in parts:
        save(args.output, results, "corrupted", corrupted(args))


if __name__ == "__main__":
    main()
