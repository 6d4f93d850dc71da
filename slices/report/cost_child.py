"""The process that loads and runs one model, and says what that took: `slices.report.cost` starts it."""

import json
import resource
import sys
from pathlib import Path
from time import perf_counter

from slices.files.child_process import work_as_child
from slices.runtime import Runtime, Sampling
from slices.runtimes.open import open_runtime

WRITTEN = 48  # tokens a round


def work(arguments: list[str]) -> None:
    """Do what the order says, as one line of JSON."""
    order = json.loads(arguments[0])
    started = perf_counter()
    file = None if order["file"] is None else Path(order["file"])
    runtime = open_runtime(Path(order["folder"]), file, order["threads"])
    loaded = perf_counter() - started
    rounds = [run(runtime, order["prompt"]) for _ in range(order["rounds"] + 1)][1:]
    told = {
        "load_seconds": loaded,
        "resident_bytes": _resident(),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _unit(),
        "prompt": [reading for reading, _ in rounds],
        "written": [writing for _, writing in rounds],
    }
    print(json.dumps(told))


def run(runtime: Runtime, prompt: str) -> tuple[float, float]:
    """Tokens a second of reading a prompt and of writing on."""
    tokens, started = len(runtime.encode(prompt)), perf_counter()
    moments, written = [], 0
    for piece in runtime.generate(prompt, Sampling(WRITTEN + 1, temperature=0)):
        moments.append(perf_counter())
        written += piece.tokens
    took = max(moments[-1] - moments[0], 1e-9)
    return tokens / max(moments[0] - started, 1e-9), max(written - 1, 0) / took


def _resident() -> int:
    """Bytes of memory in use now; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def _unit() -> int:
    """Bytes in what the system counts the peak in."""
    return 1 if sys.platform == "darwin" else 1024


if __name__ == "__main__":
    work_as_child(work)
