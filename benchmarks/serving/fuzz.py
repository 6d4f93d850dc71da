"""Fuzzing of `mom serve` with schemathesis: thousands of requests from its OpenAPI description.

    python -m benchmarks.serving.fuzz law-words biochem-words general-all --cases 10000

The slices are those of $MOM_HOME, the last one the generalist; their models are scripted, since the API is
under test (`--real` runs the models). Repeated with further seeds until there are `--cases`. A run fails on a
status of 500 or above, or a response whose type or body is not the described one;
benchmarks/results/fuzz.json counts the responses.
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


class Counts:
    """Responses and failures of all cases so far."""

    def __init__(self) -> None:
        self.statuses: dict[str, Counter[str]] = {}
        self.failures: list[dict[str, Any]] = []
        self.max_latency = 0.0

    @property
    def cases(self) -> int:
        """The number of cases."""
        return sum(counter.total() for counter in self.statuses.values())

    def add(self, record: dict[str, Any]) -> None:
        """Count the responses of one of schemathesis' scenarios."""
        counter = self.statuses.setdefault(record["label"], Counter())
        for interaction in record.get("interactions", {}).values():
            response = interaction.get("response")
            counter[str(response["status_code"]) if response else "no response"] += 1
            self.max_latency = max(self.max_latency, response["elapsed"] if response else 0.0)
        for name, checks in record.get("checks", {}).items():
            for each in (each for each in checks if each["status"] != "success"):
                request = record["interactions"].get(name, {}).get("request")
                self.failures.append(
                    {"operation": record["label"], **each["failure_info"], "request": request}
                )


def scenarios(url: str, seed: int, examples: int) -> Iterator[dict[str, Any]]:
    """The recorded scenarios of one run of schemathesis."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.ndjson"
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json"]
        report = ["--report", "ndjson", "--report-ndjson-path", str(path), "--generation-database", "none"]
        amount = ["--seed", str(seed), "--max-examples", str(examples), "--request-timeout", "60"]
        done = subprocess.run(
            [*command, *report, *amount, "--checks", CHECKS, "--continue-on-failure"], cwd=folder
        )
        if done.returncode not in (0, 1):  # 1: it found failures
            raise SystemExit(f"schemathesis ended with {done.returncode}")
        for line in path.read_text(encoding="utf-8").splitlines():
            if scenario := json.loads(line).get("ScenarioFinished"):
                yield scenario["recorder"]


def main() -> None:
    """Serve, fuzz, and write the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slices", nargs="+")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--examples", type=int, default=500, help="maximum cases of an operation in a run")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--real", action="store_true", help="run the slices' models")
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    args = parser.parse_args()
    counts, start, runs = Counts(), perf_counter(), 0
    with serving(args.slices, limits=SHORT, **({} if args.real else {"runtime": SCRIPTED})) as service:
        for runs in count(1):
            for record in scenarios(service.url, args.seed + runs - 1, args.examples):
                counts.add(record)
            print(f"{counts.cases:,} cases, {len(counts.failures)} failures", file=sys.stderr)
            if counts.cases >= args.cases or counts.failures:
                break
    results = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {each: version(each) for each in ("schemathesis", "ray", "fastapi")},
        "settings": {"models": "real" if args.real else "scripted", "seed": args.seed, "runs": runs},
        "seconds": perf_counter() - start,
        "cases": counts.cases,
        "max_latency_seconds": counts.max_latency,
        "statuses": {label: dict(sorted(each.items())) for label, each in sorted(counts.statuses.items())},
        "failures": counts.failures,
    }
    args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))
    if counts.failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
