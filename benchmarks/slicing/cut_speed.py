"""Time `mom slice` against `cp` and mergekit's passthrough of the same layers, in bytes written a second.

The methods run in turn, each from the same state: nothing of the input in the page cache, nothing left to
be written back. `cp` copies the parent's file, so that both read the same part of the disk; a slice is
smaller, so the seconds of `cp` are scaled to its bytes. `cp` is timed alone and together with the fsync
that makes it durable; `mom slice` as it is (it fsyncs before it renames) and, in the first round as
mergekit is, with its fsync taken out.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.paths import README, RESULTS
from slices.architecture.anatomy import match_tensors, read_anatomy
from slices.checkpoint import open_checkpoint
from slices.cut.pipeline import plan_cut
from slices.cut.plan import TensorPlan
from slices.cut.request import SliceRequest
from slices.errors import SliceError
from slices.files.safetensors_header import ITEM_BYTES, read_header

SWA = [index for index in range(42) if index % 6 != 5]
ROWS = 2**12  # of a tensor that are compared at once
UNSYNCED = "import os; os.fsync = lambda descriptor: None; from mom.cli import main; main()"
LAUNCHER = """
import json, os, sys, time
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
started = time.monotonic()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ, file_actions=[
    (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)])
_, status, usage = os.wait4(child, 0)
print(json.dumps([time.monotonic() - started, usage.ru_maxrss, os.waitstatus_to_exitcode(status)]))
"""
MERGEKIT = """
import torch
from mergekit.architecture import base
for model in (base.ConfiguredModuleArchitecture, base.ConfiguredModelArchitecture):
    model.model_rebuild(_types_namespace={"torch": torch, **vars(base)})  # newer transformers need it
from mergekit.scripts.run_yaml import main
main()
"""
CORPUS = README


@dataclass(frozen=True)
class Case:
    """One cut: what mom is asked for, and the layer ranges that mergekit is."""

    layers: str
    vocab: str
    kept: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...] = ()


CASES = {
    "SWA only": Case(
        layers="swa", vocab="all", kept=tuple(SWA), ranges=tuple((a, a + 5) for a in range(0, 42, 6))
    ),
    "layers 0-23": Case(layers="0-23", vocab="all", kept=tuple(range(24)), ranges=((0, 24),)),
    "vocabulary 65,536": Case("all", "65536", tuple(range(42))),
}


def timed(command: Sequence[str | Path], log: Path) -> tuple[float, int, int]:
    """Seconds, peak memory in bytes (of the largest process) and exit code of a command.

    A small process starts it: a child's peak counts the memory of the process that it was forked from.
    """
    done = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCHER, log, *command], stdout=subprocess.PIPE, check=True
    )
    seconds, peak, code = json.loads(done.stdout)
    return seconds, peak * 1024, code


def forget(*folders: Path) -> None:
    """Write back what is dirty and drop these files from the page cache."""
    os.sync()
    for file in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def synced(folder: Path) -> float:
    """Seconds to make a folder durable."""
    started = time.monotonic()
    for file in [*folder.iterdir(), folder]:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return time.monotonic() - started


def slice_command(case: Case, parent: Path, corpus: Path, out: Path) -> list[str]:
    """The arguments of `mom`."""
    return [
        "slice", "--domain", "law", "--layers", case.layers, "--vocab", case.vocab, "--model", str(parent),
        "--corpus", str(corpus), "-o", str(out), "--json",
    ]  # fmt: skip


def mergekit_config(case: Case, parent: Path) -> str:
    """The same layers as a passthrough."""
    parts = [{"sources": [{"model": str(parent), "layer_range": list(r)}]} for r in case.ranges]
    return json.dumps({"merge_method": "passthrough", "dtype": "bfloat16", "slices": parts})


def check(case: Case, parent: Path, corpus: Path, out: Path) -> str:
    """Whether every tensor of the slice has the parent's bytes, by numpy: "right", or what is not."""
    request = SliceRequest(
        domain="law", layers=case.layers, model=str(parent), vocab=case.vocab, corpus=(corpus,), output=out
    )
    _, plan, _ = plan_cut(request)
    found = {
        entry.name: entry for file in sorted(out.glob("*.safetensors")) for entry in read_header(file)[0]
    }
    if found.keys() != {tensor.slot.name for tensor in plan.tensors}:
        return "other tensors than planned"
    written = sum(file.stat().st_size for file in out.glob("model*"))
    if written != plan.nbytes:
        return f"{written} bytes, planned {plan.nbytes}"
    for tensor in plan.tensors:
        entry = found[tensor.slot.name]
        ours = np.memmap(entry.file, f"u{ITEM_BYTES[entry.dtype]}", "r", entry.start, entry.shape)
        if not all(np.array_equal(ours[a : a + len(rows)], rows) for a, rows in expected(tensor)):
            return f"{entry.name} differs"
    return "right"


def expected(tensor: TensorPlan) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """The kept part of a parent's tensor, some rows at a time, with the position of the first."""
    assert tensor.source is not None
    kind = f"u{ITEM_BYTES[tensor.source.dtype]}"
    whole = np.memmap(tensor.source.file, kind, "r", tensor.source.start, tensor.source.shape)
    kept = np.arange(len(whole)) if tensor.rows is None else tensor.rows
    for at in range(0, len(kept), ROWS):
        rows = whole[kept[at : at + ROWS]]
        yield at, rows if tensor.columns is None else rows[:, tensor.columns]


def verdict(folder: Path) -> str:
    """What our own reader says of a checkpoint: "complete", or the first thing that is wrong."""
    try:
        checkpoint = open_checkpoint(folder)
        match_tensors(checkpoint, read_anatomy(checkpoint.config))
    except SliceError as error:
        return str(error).replace(f"{folder}", "the result").removeprefix("the result: ")
    return "complete"


def methods(case: Case, args: argparse.Namespace, work: Path) -> dict[str, Callable[[], dict[str, float]]]:
    """What is run in each round, by name."""
    out, log = work / "out", work / "log"

    def report(command: Sequence[str | Path]) -> dict[str, float]:
        seconds, peak, code = timed(command, log)
        if code:
            raise RuntimeError(f"exit code {code}: {log.read_text().strip().splitlines()[-1][:300]}")
        return {"seconds": seconds, "peak_bytes": peak}

    def copy() -> dict[str, float]:
        out.mkdir()
        copied = report(["cp", args.parent / "model.safetensors", out])
        return copied | {"with_fsync": copied["seconds"] + synced(out)}

    arguments = slice_command(case, args.parent, args.corpus, out)
    found = {
        "mom": lambda: report([sys.executable, "-m", "mom", *arguments]),
        "cp": copy,
        "mom without fsync": lambda: report([sys.executable, "-c", UNSYNCED, *arguments]),
    }
    if args.mergekit and case.ranges:
        config = work / "mergekit.yaml"
        config.write_text(mergekit_config(case, args.text_parent or args.parent))
        found["mergekit"] = lambda: report([args.mergekit, "-c", MERGEKIT, config, out, "--lazy-unpickle"])
    return found


def measure(name: str, case: Case, args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All rounds of one case; every other round runs the methods in the opposite order."""
    first, out = work / "first", work / "out"
    runs = methods(case, args, work)
    found: dict[str, Any] = {}
    rounds: list[dict[str, dict[str, float]]] = []
    for turn in range(args.rounds):
        order = [method for method in runs if turn == 0 or method in ("mom", "cp")]
        rounds.append({})
        for method in order if turn % 2 == 0 else reversed(order):
            shutil.rmtree(out, ignore_errors=True)
            forget(args.parent, work)
            try:
                rounds[-1][method] = runs[method]()
            except RuntimeError as error:
                found[f"{method}_result"] = str(error).replace(str(args.parent), "the parent")
                continue
            if method == "mergekit":
                found["mergekit_result"] = verdict(out)
            if method == "mom" and not first.exists():
                out.rename(first)  # to be compared with the parent
            print(f"{name}, round {turn + 1}: {method} {rounds[-1][method]}", file=sys.stderr, flush=True)
    made = json.loads((first / "slice.json").read_text())
    found |= {"bytes": made["bytes"], "layers": len(made["layers"]), "rows": made["vocabulary"]}
    found["mom_result"] = "not compared" if args.no_check else check(case, args.parent, args.corpus, first)
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(first)
    parent_bytes = (args.parent / "model.safetensors").stat().st_size
    return found | {"rounds": rounds} | summary(scaled(rounds, found["bytes"] / parent_bytes))


def scaled(rounds: list[dict[str, dict[str, float]]], share: float) -> list[dict[str, dict[str, float]]]:
    """The rounds with the seconds of `cp` scaled to the bytes of the slice."""
    names = ("seconds", "with_fsync")
    return [r | {"cp": r["cp"] | {name: r["cp"][name] * share for name in names}} for r in rounds]


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians and ranges; a speed is a ratio of seconds paired within its round."""
    pairs = {
        "durable": ("cp", "with_fsync", "mom"),
        "neither durable": ("cp", "seconds", "mom without fsync"),
        "mom durable, cp not": ("cp", "seconds", "mom"),
        "against mergekit": ("mergekit", "seconds", "mom without fsync"),
    }
    speed = {
        name: spread([r[other][key] / r[ours]["seconds"] for r in rounds if other in r and ours in r])
        for name, (other, key, ours) in pairs.items()
        if any(other in r and ours in r for r in rounds)
    }
    names = dict.fromkeys(name for r in rounds for name in r)
    seconds = {name: spread([r[name]["seconds"] for r in rounds if name in r]) for name in names}
    seconds["cp with fsync"] = spread([r["cp"]["with_fsync"] for r in rounds])
    peak = {name: max(r[name]["peak_bytes"] for r in rounds if name in r) for name in names}
    return {"seconds": seconds, "speed": speed, "peak_bytes": peak}


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": round(median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def main() -> None:
    """Run all cases and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parent", type=Path, help="a checkpoint of python -m benchmarks.models.synthetic_e4b")
    parser.add_argument("work", type=Path, help="a scratch folder on the same disk, with room for two slices")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="text for the vocabulary cut")
    parser.add_argument("--mergekit", type=Path, help="the python of a virtual environment with mergekit")
    parser.add_argument(
        "--text-parent", type=Path, help="for mergekit, which slices no model of several modules by layers"
    )
    parser.add_argument("--no-check", action="store_true", help="do not compare the tensors")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "cut_speed.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "cpus": os.cpu_count(),
        "kernel": platform.release().split("-")[0],
        "versions": {"python": platform.python_version(), "numpy": version("numpy"), "mergekit": "0.1.4"},
        "state": "input dropped from the page cache and dirty pages written back before every run",
        "parent_bytes": sum(file.stat().st_size for file in args.parent.glob("*.safetensors")),
        "cases": {},
    }
    for name, case in CASES.items():
        found["cases"][name] = measure(name, case, args, args.work)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
