"""Measure the rows of docs/results.md: cut, measure, heal, measure again; one command a row.

    python -m benchmarks.healing.run --data DIR swa-law            one row
    python -m benchmarks.healing.run --data DIR                    every row that is not in
    benchmarks/results/healing.json yet

`--model` is any parent; rows are kept by model and name. `--show` lists the rows and measures nothing. Two
runs of different rows with `--threads 1` get through more than one with two.
"""

import argparse
import fcntl
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.healing.measure import Bench, likelihoods, weight_bytes, written
from benchmarks.healing.rows import DOMAINS, Row, rows
from benchmarks.healing.unshare_kv import unshare
from benchmarks.paths import RESULTS
from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.errors import RunFailed, SliceError
from slices.files.atomic import write_text
from slices.heal.heal import heal
from slices.heal.loop import TrainingProgress
from slices.heal.request import HealRequest
from slices.heal.settings import HealConfig
from slices.model_ref import locate, open_model
from slices.text.corpus import read_corpus

OUT = RESULTS / "healing.json"
HYPERPARAMETERS = ("steps", "hard_label_weight", "label_only_fraction", "batch", "lr")


def measured(row: Row, bench: Bench, model: str) -> dict[str, Any]:
    """Everything about a row, and when and with what it was measured."""
    found: dict[str, Any] = {"row": asdict(row), "model": Path(model).name}
    if row.quant is None:
        found |= measured_slice(row, bench, model)
    else:
        found["plain"] = written(bench.parent, row.domain, bench, *row.quant)
    found["made"] = datetime.now(UTC).isoformat(timespec="seconds")
    found["versions"] = {name: version(name) for name in ("torch", "transformers", "llama-cpp-python")}
    found["machine"] = platform.machine()
    return found


def measured_slice(row: Row, bench: Bench, model: str) -> dict[str, Any]:
    """A slice, raw (but for `long`: that is another row's) and healed."""
    raw = slice_of(row, bench, model)
    found: dict[str, Any] = {"layers": manifest.read(raw).layers}
    if row.table != "long":
        found["raw"] = form(raw, row, (row.domain,), bench)
    if row.steps:
        try:
            healed = healed_of(raw, row, bench)
        except RunFailed as error:  # healing made nothing better, which is a result too
            found["not_healed"] = str(error)
        else:
            domains = DOMAINS if row.table == "swa" else (row.domain,)
            found["healed"] = form(healed, row, domains, bench)
            found["healing"] = manifest.read(healed).healing
    return found


def form(folder: Path, row: Row, domains: Sequence[str], bench: Bench) -> dict[str, Any]:
    """A checkpoint on domains, the row's own among them, and its file on that."""
    return {
        "bytes": weight_bytes(folder),
        "domains": {domain: likelihoods(folder, domain, bench) for domain in domains},
        "file": written(folder, row.domain, bench),
    }


def slice_of(row: Row, bench: Bench, model: str) -> Path:
    """The slice, cut unless it is there."""
    folder = bench.work / f"{Path(model).name}-{row.name.removesuffix('-long')}"
    if not (folder / manifest.FILE).is_file():
        layers = row.layers
        if layers.startswith("chance:"):
            layers = by_chance(model, int(layers.removeprefix("chance:")), row.seed)
        text = (bench.calibration(row.by or row.domain),)
        cut(
            SliceRequest(
                domain=row.domain,
                layers=layers,
                model=model,
                vocab=row.vocab,
                corpus=text,
                output=folder,
                seed=row.seed,
            )
        )
    if row.unshared is None:
        return folder
    target = folder.with_name(f"{folder.name}-own")
    return target if target.is_dir() else unshare(folder, target, row.unshared)


def by_chance(model: str, count: int, seed: int) -> str:
    """That many layers drawn at random among those that a cut may drop."""
    layers = read_anatomy(open_model(model).config).layers
    donors = {layer.donor for layer in layers if layer.donor is not None}
    free = [layer.index for layer in layers if layer.index not in donors]
    dropped = np.random.default_rng(seed).choice(free, len(layers) - count, replace=False)
    return "drop:" + ",".join(map(str, sorted(dropped.tolist())))


def healed_of(raw: Path, row: Row, bench: Bench) -> Path:
    """The healed slice, unless it is there."""
    tags = {"h": row.hard_label_weight, "a": row.label_only_fraction or None, "r": row.lr}
    given = "".join(f"-{key}{value}" for key, value in tags.items() if value is not None)
    settings = f"{row.steps}x{row.batch}{given}"
    folder = raw.with_name(f"{raw.name}-healed-{settings}")
    if not (folder / manifest.FILE).is_file():
        text = read_corpus([bench.calibration(row.domain)])
        config = HealConfig(
            steps=row.steps,
            lr=row.lr,
            hard_label_weight=row.hard_label_weight,
            label_only_fraction=row.label_only_fraction,
            batch=row.batch,
        )
        request = HealRequest(
            slice=raw,
            target=folder,
            text=text,
            config=config,
            device=bench.device,
            threads=bench.threads,
        )
        heal(request, print_evaluation)
    return folder


def print_evaluation(progress: TrainingProgress) -> None:
    """A step callback that prints every evaluation on held-out text."""
    if progress.point is not None:
        kl, bits = progress.point.kl.value, progress.point.bits_per_byte.value
        speed = f"{progress.tokens_per_second:.0f} tokens/s"
        step = f"step {progress.step} of {progress.total_steps}"
        print(f"  {step}: KL {kl:.4f}, bits per byte {bits:.4f}, {speed}", flush=True)


def known(out: Path) -> list[dict[str, Any]]:
    """The rows that were measured."""
    found: list[dict[str, Any]] = json.loads(out.read_text())["rows"] if out.is_file() else []
    return found


def keep(out: Path, new: dict[str, Any]) -> None:
    """Put `new` in the place of an older row of its name; several runs may do so at a time."""
    key = (new["model"], new["row"]["name"])
    with out.with_name(f".{out.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        others = [old for old in known(out) if (old["model"], old["row"]["name"]) != key]
        write_text(out, json.dumps({"rows": [*others, new]}, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="ROW")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--work", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--limit", type=int, default=24_000, help="bytes of held-out text a domain")
    parser.add_argument(
        "--steps", type=int, help="of healing; this and the next four in place of each row's own"
    )
    parser.add_argument("--hard-label-weight", type=float, help="cross-entropy weight")
    parser.add_argument("--label-only-fraction", type=float, help="fraction of the steps without teacher")
    parser.add_argument("--batch", type=int, help="rows of 512 tokens a step")
    parser.add_argument("--lr", type=float, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where checkpoints are healed and measured")
    parser.add_argument("--show", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Measure the selected rows, writing after each."""
    args = arguments()
    anatomy = read_anatomy(open_model(args.model).config)
    shared = sum(layer.shared for layer in anatomy.layers)
    every = rows(len(anatomy.layers), anatomy.dims.vocab, shared)
    selected = [row for row in every if not args.names or row.name in args.names]
    if args.show:
        print("\n".join(f"{row.name}: {asdict(row)}" for row in selected))
        return
    done = {(each["model"], each["row"]["name"]) for each in known(args.out)}
    args.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        parent=locate(args.model),
        data=args.data,
        work=args.work,
        limit=args.limit,
        threads=args.threads,
        device=args.device,
    )
    given = {name: getattr(args, name) for name in HYPERPARAMETERS}
    changes = {name: value for name, value in given.items() if value is not None}
    failed = False
    for row in selected:
        if not args.names and (Path(args.model).name, row.name) in done:
            continue
        print(row.name, flush=True)
        try:
            keep(args.out, measured(replace(row, **changes), bench, args.model))
        except SliceError as error:
            print(f"  {error}", flush=True)
            failed = True
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
