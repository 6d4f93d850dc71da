"""Write the tables of README.md and of the pages in docs/ from benchmarks/results/*.json.

A table goes between `<!-- table:NAME -->` and `<!-- /table:NAME -->`, on one page.

With --check nothing is written; the exit code tells whether they are up to date.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.paths import README, RESULTS, ROOT
from benchmarks.tables.healing import budget_lines, matrix_table, plain_table, rows_table
from benchmarks.tables.markdown import left_table, table
from benchmarks.tables.routing import break_even_lines, latency_lines, quality_lines, vocabulary_lines
from benchmarks.tables.serving import chaos_lines, fuzz_lines, load_lines, perplexity_lines, serve_lines
from benchmarks.tables.statistics import family_lines, single_lines
from benchmarks.tables.track_record import track_record_lines

SHOWN = (
    "BF16 against parent", "Q2_K", "Q2_K, imatrix", "Q3_K_S", "Q3_K_M", "Q3_K_M, imatrix", "Q4_K_M",
    "only blocks Q2_K", "only blocks Q2_K, imatrix", "only blocks Q3_K",
)  # fmt: skip
EQUAL_BYTES = (
    (None, "Q8_0"), (None, "Q4_K_M"), (None, "Q4_K_M:Q5_0"), (None, "Q2_K:Q4_0"), (65536, "Q4_K_M:Q5_0"),
    (46080, "Q4_K_M:Q5_0"), (32768, "Q4_K_M"), (32768, "Q2_K"), (16384, "Q4_K_M"),
)  # fmt: skip


def spread(value: Mapping[str, float] | None, unit: str = "", digits: int = 2) -> str:
    """Median and range: 0.97 (0.93-1.01)."""
    if value is None:
        return "-"
    middle, low, high = (f"{value[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"{middle}{unit}" if low == high else f"{middle}{unit} ({low}-{high})"


def mergekit(case: Mapping[str, Any]) -> str:
    """Its seconds and memory, and what our reader says of its result."""
    if "mergekit" not in case["seconds"]:
        return str(case.get("mergekit_result", "-"))
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


def eight_gb_table(figures: Mapping[str, Any]) -> str:
    """File and memory of the types that the recipe is about, by cut."""
    words = {"whole": "yes", "needed": "yes, if pages may be dropped", "no": "no"}
    rows = []
    for name, case in figures["cases"].items():
        for file in case["files"]:
            if file["type"] not in ("IQ4_XS", "Q4_K_M"):
                continue
            short, long = (file["memory"][context] for context in ("4096", "32768"))
            rows.append(
                [
                    name,
                    f"{file['type']}, {file['embedding_type']}",
                    f"{file['bytes'] / 1e9:.2f} GB",
                    f"{short['total'] / 1e9:.2f} / {short['needed'] / 1e9:.2f} GB",
                    f"{long['total'] / 1e9:.2f} / {long['needed'] / 1e9:.2f} GB",
                    words[long["fits"]],
                ]
            )
    columns = [
        "cut of E4B",
        "type, embedding type",
        "file",
        "all / needed at 4 k",
        "at 32 k",
        "fits 8 GB at 32 k",
    ]
    return table(columns, rows)


def experiment_rows(
    figures: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """Columns and lines of measured recipes; an error to each figure."""
    columns = [
        "model", "FFN ratio", "recipe", "bytes", "bits a weight", "blocks below 4 bits", "KL, nats a token",
        "perplexity ratio", "same top token", "predictor", "right",
    ]  # fmt: skip
    words = {True: "right", False: "wrong", None: "-"}
    return columns, [
        [
            row["model"],
            " and ".join(f"{each:.3g}" for each in sorted({*figures["models"][row["model"]]["ffn_ratios"]})),
            row["recipe"]["name"],
            f"{row['bytes']:,}",
            f"{row['bits_per_weight']:.2f}",
            f"{row['below_4_bits']:.0%}",
            f"{row['kl']['value']:.4f} ± {row['kl']['stderr']:.4f}",
            f"{row['perplexity_ratio']['value']:.4g} ± {row['perplexity_ratio']['stderr']:.2g}",
            f"{row['same_top1']['value']:.1%} ± {row['same_top1']['stderr']:.1%}",
            row["verdict"] or "-",
            words[row["right"]] if row["verdict"] else "-",
        ]
        for row in rows
    ]


def experiments_table(figures: Mapping[str, Any]) -> str:
    """The rows that tell most; `python -m benchmarks.ffn_ratio.run --show` prints all of them."""
    shown = [row for row in figures["rows"] if row["recipe"]["name"] in SHOWN]
    return table(*experiment_rows(figures, sorted(shown, key=lambda row: order(figures, row))))


def order(figures: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[int, int]:
    """By model, then as in `SHOWN`."""
    return list(figures["models"]).index(row["model"]), SHOWN.index(row["recipe"]["name"])


def equal_bytes_table(figures: Mapping[str, Any]) -> str:
    """Files by domain, the largest first; the parent's and those slices that tell most."""
    rows = []
    for domain, found in figures["domains"].items():
        for file in sorted(found["files"], key=lambda each: -each["bytes"]):
            if (file["rows"], file["type"]) not in EQUAL_BYTES:
                continue
            bits, lost = file["bits_per_byte"], file["lost_mass"]
            rows.append(
                [
                    domain,
                    "whole" if file["rows"] is None else f"{file['rows']:,} rows",
                    file["type"].replace(":", ", tables "),
                    f"{file['bytes'] / 1e6:.1f} MB",
                    f"{file['share']:.0%}",
                    f"{bits['value']:.3f} ± {bits['stderr']:.3f}",
                    difference(file["against_base"]),
                    difference(file["against_bf16"]),
                    f"{file['kl']['mean']:.4f} ± {file['kl']['stderr']:.4f}",
                    f"{lost['value']:.2%} ± {lost['stderr']:.2%}" if lost else "-",
                ]
            )
    base = figures["base"]
    columns = [
        "domain", "vocabulary", "type", "file", f"of {base}", "bits per byte", f"against {base}",
        "against bf16", "KL on kept tokens", "lost mass",
    ]  # fmt: skip
    return table(columns, rows)


def difference(share: Mapping[str, float]) -> str:
    """A relative difference and its error in percent; nothing where it is exactly none."""
    return f"{share['value']:+.1%} ± {share['stderr']:.1%}" if share["stderr"] else "-"


def runtime_table(figures: Mapping[str, Any]) -> str:
    """Speed of slices and of their parent, and the ratio within each round."""
    rows = []
    for entry in figures["models"]:
        speed, ratios = entry["speed"], entry["against_parent"] or {}
        rows.append(
            [
                entry["model"],
                entry["type"],
                f"{entry['bytes'] / 1e6:.0f} MB",
                *(
                    part
                    for what in ("prompt tokens/s", "prompt bytes/s", "written tokens/s")
                    for part in (spread(speed[what], digits=0), spread(ratios.get(what), "x"))
                ),
            ]
        )
    columns = ["model", "type", "file", "prompt tokens/s", "of parent", "prompt bytes/s", "of parent"]
    return table([*columns, "written tokens/s", "of parent"], rows)


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "ffn_ratio": experiments_table,
    "cut_speed": slice_table,
    "memory_8gb": eight_gb_table,
    "equal_bytes": equal_bytes_table,
    "runtime_speed": runtime_table,
    "budget": lambda figures: table(*budget_lines(figures)),
    "throughput": lambda figures: table(*serve_lines(figures)),
    "chaos": lambda figures: table(*chaos_lines(figures)),
    "soak": lambda figures: table(*load_lines(figures)),
    "fuzz": lambda figures: table(*fuzz_lines(figures)),
    "perplexity": lambda figures: table(*perplexity_lines(figures)),
    "break_even": lambda figures: table(*break_even_lines(figures)),
    "vocabulary_fit": lambda figures: table(*vocabulary_lines(figures)),
}


OTHER = {"matrix": matrix_table, "plain": plain_table}
HEALING = (
    "plain",
    "swa",
    "long",
    "unshared",
    "words",
    "depth",
    "choice",
    "matrix",
)  # its tables in docs/results.md


def results_table(figures: Mapping[str, Any], name: str) -> str:
    """One table of docs/results.md, models in the order in which they were measured."""
    parts = []
    for model in dict.fromkeys(row["model"] for row in figures["rows"]):
        found = [row for row in figures["rows"] if row["model"] == model]
        make = OTHER.get(name)
        columns, lines = make(found) if make else rows_table(found, name)
        if lines:
            parts.append(f"{model}:\n\n{table(columns, lines)}")
    return "\n\n".join(parts) or "Not measured yet."


def contents() -> dict[str, str]:
    """Every table by its name."""
    found = {}
    for name, make in TABLES.items():
        source = RESULTS / f"{name}.json"
        if source.is_file():
            found[name] = make(json.loads(source.read_text(encoding="utf-8")))
    source = RESULTS / "routing.json"
    if source.is_file():
        figures = json.loads(source.read_text(encoding="utf-8"))
        found |= {"route": table(*quality_lines(figures)), "route_latency": table(*latency_lines(figures))}
    source = RESULTS / "null.json"
    if source.is_file():
        figures = json.loads(source.read_text(encoding="utf-8"))
        found |= {
            "null": table(*single_lines(figures, "false_positives")),
            "null_power": table(*single_lines(figures, "power")),
            "null_families": table(*family_lines(figures)),
        }
    found["track_record"] = left_table(*track_record_lines())
    source = RESULTS / "healing.json"
    figures = json.loads(source.read_text(encoding="utf-8")) if source.is_file() else {"rows": []}
    return found | {f"results_{name}": results_table(figures, name) for name in HEALING}


def filled(text: str, name: str, content: str) -> str:
    """`text` with what is between the markers of `name` replaced, where it has them."""
    pattern = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- /table:{name} -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)


def pages() -> list[Path]:
    """The pages that may hold tables."""
    return [README, *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> None:
    """Bring the pages up to date, or check that they are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    tables, stale = contents(), []
    for page in pages():
        before = after = page.read_text(encoding="utf-8")
        for name, content in tables.items():
            after = filled(after, name, content)
        if after != before:
            stale.append(page.name)
            if not args.check:
                page.write_text(after, encoding="utf-8")
    if args.check and stale:
        sys.exit(f"{', '.join(stale)}: the tables are out of date; run python -m benchmarks.tables.render")


if __name__ == "__main__":
    main()
