"""Server processes of the benchmarks, and their resident memory."""

import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import yaml

START_SECONDS = 300  # until a server must be ready


@dataclass(frozen=True)
class Service:
    """A running `mom serve`: its address, its pid, and the settings that it reloads."""

    url: str
    pid: int
    config: Path


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: Sequence[str], url: str, path: str) -> Iterator[int]:
    """A server process that is ready; its pid. It is terminated at the end, also where this script is."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_for(url + path, process)
            yield process.pid
        finally:
            process.terminate()
            process.wait(timeout=60)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until `url` answers 200."""
    deadline = monotonic() + START_SECONDS
    while monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}")
        try:
            if httpx.get(url, timeout=30).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        sleep(0.5)
    raise SystemExit(f"{url} was not ready after {START_SECONDS} s")


@contextmanager
def serving(experts: Sequence[str], ready: str = "/ready", **more: Any) -> Iterator[Service]:
    """`mom serve` with these experts, the last one the generalist; `more` goes into its serve.yaml."""
    port = free_port()
    settings: Mapping[str, Any] = {"experts": list(experts), "generalist": experts[-1], "port": port, **more}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "serve.yaml"
        path.write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mom", "serve", "--config", str(path)]
        with running(command, url, ready) as pid:
            yield Service(url, pid, path)


def process_tree(pid: int) -> list[int]:
    """The pids of a process and all its descendants."""
    pids, queue = [], [pid]
    while queue:
        pids.append(each := queue.pop())
        try:
            tasks = list(Path(f"/proc/{each}/task").iterdir())
            queue += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:  # it has ended meanwhile
            continue
    return pids


def resident_bytes(pid: int) -> int:
    """Resident bytes (PSS) of a process tree: shared pages are counted once."""
    total = 0
    for each in process_tree(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    return total
