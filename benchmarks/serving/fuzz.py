"""Thousands of requests that the service's own description allows or forbids: schemathesis and `mom serve`.

    python -m benchmarks.serving.fuzz law-words biochem-words general-all --cases 10000

The slices are those of $MOM_HOME, the last one the generalist; their models are scripted, since the requests
are what is tried (`--real` runs the models). Runs seed after seed until as many cases were asked. A run fails
on a status of 500 or above, or an answer whose type or body is not the described one;
benchmarks/results/fuzz.json counts them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.paths import RESULTS
from benchmarks.serving.process import serving

OUT = RESULTS / "fuzz.json"
SCRIPTED = "router.engine.scripted:open_batcher"
CHECKS = "not_a_server_error,content_type_conformance,response_schema_conformance"
SHORT = {"max_tokens": 8, "default_max_tokens": 8}  # so that real models answer soon


class Counted:
    """What came of all cases so far."""

    def __init__(self) -> None:
        self.asked: dict[str, Counter[str]] = {}
        self.failures: list[dict[str, Any]] = []
        self.slowest = 0.0

    @property
    def cases(self) -> int:
        """How many were asked."""
        return sum(counter.total() for counter in self.asked.values())

    def add(self, record: dict[str, Any]) -> None:
        """Count what schemathesis recorded of a scenario."""
        counter = self.asked.setdefault(record["label"], Counter())
        for interaction in record.get("interactions", {}).values():
            answer = interaction.get("response")
            counter[str(answer["status_code"]) if answer else "no answer"] += 1
            self.slowest = max(self.slowest, answer["elapsed"] if answer else 0.0)
        for name, checks in record.get("checks", {}).items():
            for each in (each for each in checks if each["status"] != "success"):
                asked = record["interactions"].get(name, {}).get("request")
                self.failures.append({"where": record["label"], **each["failure_info"], "asked": asked})


def scenarios(url: str, seed: int, examples: int) -> Iterator[dict[str, Any]]:
    """One run of schemathesis: what it recorded of each scenario."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.ndjson"
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json"]
        told = ["--report", "ndjson", "--report-ndjson-path", str(path), "--generation-database", "none"]
        amount = ["--seed", str(seed), "--max-examples", str(examples), "--request-timeout", "60"]
        done = subprocess.run(
            [*command, *told, *amount, "--checks", CHECKS, "--continue-on-failure"], cwd=folder
        )
        if done.returncode not in (0, 1):  # 1: it found something
            raise SystemExit(f"schemathesis ended with {done.returncode}")
        for line in path.read_text(encoding="utf-8").splitlines():
            if finished := json.loads(line).get("ScenarioFinished"):
                yield finished["recorder"]


def main() -> None:
    """Serve, ask, count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slices", nargs="+")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--examples", type=int, default=500, help="of an operation in a run, at most")
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--real", action="store_true", help="with the slices' own models")
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    args = parser.parse_args()
    found, begun, runs = Counted(), perf_counter(), 0
    with serving(args.slices, limits=SHORT, **({} if args.real else {"runtime": SCRIPTED})) as service:
        for runs in count(1):
            for record in scenarios(service.url, args.seed + runs - 1, args.examples):
                found.add(record)
            print(f"{found.cases:,} cases, {len(found.failures)} failures", file=sys.stderr)
            if found.cases >= args.cases or found.failures:
                break
    told = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {each: version(each) for each in ("schemathesis", "ray", "fastapi")},
        "settings": {"models": "real" if args.real else "scripted", "seed": args.seed, "runs": runs},
        "seconds": perf_counter() - begun,
        "cases": found.cases,
        "slowest_seconds": found.slowest,
        "asked": {label: dict(sorted(each.items())) for label, each in sorted(found.asked.items())},
        "failures": found.failures,
    }
    args.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=1))
    if found.failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
