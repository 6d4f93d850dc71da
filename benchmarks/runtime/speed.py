"""Time a slice against its parent in llama.cpp, quantized to the same type, on the same machine.

    python -m benchmarks.runtime.speed law --types Q4_K_M,Q8_0

Runs go through `Runtime.generate`, which is what serves. Parent and slices take turns in every round, so
that a busy spell of the machine meets all of them; the spread over the rounds is the machine's noise. A
slice with a smaller vocabulary needs more tokens for the same text, so bytes of text a second stand
beside tokens a second.
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.paths import README, RESULTS
from slices import manifest
from slices.model_ref import locate
from slices.quant.quantize import quantize
from slices.runtime import Runtime, Sampling
from slices.runtimes.llama_runtime import LlamaRuntime

PROSE = README
PROMPT_BYTES = 1500
WRITTEN = 64


@dataclass
class Runner:
    """One loaded model, and the speeds that it reached."""

    name: str
    type: str
    bytes: int
    runtime: Runtime
    speeds: dict[str, list[float]] = field(default_factory=dict)

    def run(self, prompt: str) -> None:
        """Read a prompt and write on; adds what that took."""
        tokens = len(self.runtime.encode(prompt))
        started = perf_counter()
        moments, written = [], 0
        for piece in self.runtime.generate(prompt, Sampling(WRITTEN + 1, temperature=0)):
            moments.append(perf_counter())
            written += piece.tokens
        reading = moments[0] - started
        self._add("prompt tokens/s", tokens / reading)
        self._add("prompt bytes/s", len(prompt.encode()) / reading)
        self._add("written tokens/s", (written - 1) / max(moments[-1] - moments[0], 1e-9))

    def _add(self, what: str, value: float) -> None:
        self.speeds.setdefault(what, []).append(value)


def runners(
    folders: Sequence[tuple[str, Path]], types: Sequence[str], scratch: Path, threads: int
) -> Iterator[Runner]:
    """Every model in every type, quantized into `scratch` and loaded."""
    for type in types:
        for name, folder in folders:
            made = quantize(folder, type, scratch / f"{name}-{type}.gguf")
            yield Runner(
                name=name, type=type, bytes=made.bytes, runtime=LlamaRuntime(made.path, threads, n_ctx=2048)
            )


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and range over the rounds."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def figures(made: Sequence[Runner], parent: str) -> list[dict[str, Any]]:
    """One entry a model and type; a ratio is taken within each round, against the parent of that type."""
    entries = []
    for runner in made:
        base = next(other for other in made if other.name == parent and other.type == runner.type)
        ratios = {
            what: summary([a / b for a, b in zip(values, base.speeds[what], strict=True)])
            for what, values in runner.speeds.items()
        }
        entries.append(
            {
                "model": runner.name,
                "type": runner.type,
                "bytes": runner.bytes,
                "speed": {what: summary(values) for what, values in runner.speeds.items()},
                "against_parent": ratios if runner is not base else None,
            }
        )
    return entries


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slices", nargs="+", help="names in $MOM_HOME, or folders, of one parent")
    parser.add_argument("--types", default="Q4_K_M,Q8_0")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "runtime_speed.json")
    return parser.parse_args()


def main() -> None:
    """Quantize, run in turns, write the figures."""
    args = arguments()
    places = [manifest.find(each) for each in args.slices]
    parent = manifest.read(places[0]).parent.model
    folders = [(Path(parent).name, locate(parent)), *((manifest.read(place).name, place) for place in places)]
    prompt = PROSE.read_text(encoding="utf-8")[:PROMPT_BYTES]
    with tempfile.TemporaryDirectory() as scratch:
        made = list(runners(folders, args.types.split(","), Path(scratch), args.threads))
        for round_ in range(args.rounds + 1):
            for runner in made:
                runner.run(prompt)
                if round_ == 0:
                    runner.speeds.clear()  # the first round maps the file and warms the caches
        result = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "threads": args.threads},
            "versions": {name: version(name) for name in ("mom-slicer", "llama-cpp-python")},
            "rounds": args.rounds,
            "prompt_bytes": len(prompt.encode()),
            "models": figures(made, folders[0][0]),
        }
        for runner in made:
            runner.runtime.close()
    args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["models"], indent=2))


if __name__ == "__main__":
    main()
