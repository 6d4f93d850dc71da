"""The child process that loads and runs one model and reports its cost: `slices.report.cost` starts it."""

import json
import resource
import sys
from pathlib import Path
from time import perf_counter

from slices.files.child_process import work_as_child
from slices.runtime import Runtime, Sampling
from slices.runtimes.open import open_runtime

DECODED = 48  # tokens of a round


def work(arguments: list[str]) -> None:
    """Measure what the request in `arguments` names; prints one line of JSON."""
    request = json.loads(arguments[0])
    started = perf_counter()
    file = None if request["file"] is None else Path(request["file"])
    runtime = open_runtime(Path(request["folder"]), file, request["threads"])
    load_seconds = perf_counter() - started
    rounds = [measure_round(runtime, request["prompt"]) for _ in range(request["rounds"] + 1)][1:]
    measured = {
        "load_seconds": load_seconds,
        "rss_bytes": _rss(),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _maxrss_unit(),
        "prefill": [prefill for prefill, _ in rounds],
        "decode": [decode for _, decode in rounds],
    }
    print(json.dumps(measured))


def measure_round(runtime: Runtime, prompt: str) -> tuple[float, float]:
    """Prefill and decode throughput in tokens per second."""
    prompt_tokens, started = len(runtime.encode(prompt)), perf_counter()
    times, decoded = [], 0
    for piece in runtime.generate(prompt, Sampling(DECODED + 1, temperature=0)):
        times.append(perf_counter())
        decoded += piece.tokens
    decode_seconds = max(times[-1] - times[0], 1e-9)
    return prompt_tokens / max(times[0] - started, 1e-9), max(decoded - 1, 0) / decode_seconds


def _rss() -> int:
    """Resident memory in bytes; 0 where the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def _maxrss_unit() -> int:
    """Bytes of the unit of `ru_maxrss`."""
    return 1 if sys.platform == "darwin" else 1024


if __name__ == "__main__":
    work_as_child(work)
