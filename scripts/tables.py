#!/usr/bin/env python
"""Write the README's tables from benchmarks/*.json, between `<!-- table:NAME -->` and `<!-- /table:NAME -->`.

With --check nothing is written; the exit code tells whether the README is up to date.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown, columns after the first aligned right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(value: Mapping[str, float] | None, unit: str = "", digits: int = 2) -> str:
    """Median and range: 0.97 (0.93-1.01)."""
    if value is None:
        return "-"
    middle, low, high = (f"{value[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"{middle}{unit}" if low == high else f"{middle}{unit} ({low}-{high})"


def mergekit(case: Mapping[str, Any]) -> str:
    """Its seconds and memory, and what our reader says of its result."""
    if "mergekit" not in case["seconds"]:
        return case.get("mergekit_result", "-")
    used = f"{spread(case['seconds']['mergekit'], ' s', 1)}, {case['peak_bytes']['mergekit'] / 1e6:,.0f} MB"
    right = case["mergekit_result"] == "complete"
    return used if right else f"{used}; tensors do not fit its config.json"


def slice_table(figures: Mapping[str, Any]) -> str:
    """`mom slice` beside `cp` and mergekit."""
    rows = []
    for name, case in figures["cases"].items():
        seconds, speed, peak = case["seconds"], case["speed"], case["peak_bytes"]
        rows.append(
            [
                name,
                f"{case['bytes'] / 1e9:.2f} GB",
                spread(seconds["mom"], " s", 1),
                spread(seconds["cp with fsync"], " s", 1),
                spread(speed["durable"], "x"),
                spread(speed.get("neither durable"), "x"),
                f"{peak['mom'] / 1e6:.0f} MB",
                case["mom_result"],
                mergekit(case),
            ]
        )
    columns = [
        "cut", "written", "mom slice", "cp + fsync", "speed of cp", "both without fsync", "peak memory",
        "tensors", "mergekit passthrough",
    ]  # fmt: skip
    return table(columns, rows)


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {"slice": slice_table}


def filled(text: str, name: str, content: str) -> str:
    """`text` with what is between the markers of `name` replaced, where it has them."""
    pattern = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- /table:{name} -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)


def main() -> None:
    """Bring the README up to date, or check that it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    args = parser.parse_args()
    before = after = args.readme.read_text(encoding="utf-8")
    for name, make in TABLES.items():
        source = ROOT / "benchmarks" / f"{name}.json"
        if source.is_file():
            after = filled(after, name, make(json.loads(source.read_text(encoding="utf-8"))))
    if args.check:
        sys.exit(0 if after == before else "README.md: the tables are out of date; run scripts/tables.py")
    args.readme.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
