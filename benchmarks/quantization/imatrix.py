"""Hold the importance matrix of torch hooks against llama.cpp's own `llama-imatrix` on the same tokens.

Both read the same chunks: one stream of tokens, cut every `--context` tokens, the first of each chunk
replaced by a bos, as llama-imatrix does it. llama.cpp runs the model's BF16 GGUF, torch its checkpoint. Then
llama-imatrix adds our file to its own, and to nothing, and both results are read back: the proof that it
takes our form.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks.paths import RESULTS
from slices.export import export
from slices.quant.imatrix import collect_on
from slices.quant.imatrix_file import Imatrix, read_imatrix, write_imatrix
from slices.text.corpus import read_documents

LIMIT = 0.02  # relative difference of a matrix's mean that is still the same


def read_text(file: Path, nbytes: int) -> str:
    """Documents of a file, joined, until there are `nbytes` of them."""
    parts: list[str] = []
    for document in read_documents(file):
        parts.append(document)
        if sum(len(part.encode()) for part in parts) >= nbytes:
            break
    return "\n\n".join(parts)


def chunks_of(folder: Path, text: str, context: int, most: int) -> list[list[int]]:
    """The chunks that llama-imatrix makes of a text; what is left over at its end is dropped."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    bos = tokenizer.token_to_id("<bos>")
    if bos is None:
        raise SystemExit(f"{folder}: its tokenizer has no <bos>")
    ids = [bos, *tokenizer.encode(text, add_special_tokens=False).ids]
    count = min(most, len(ids) // context)
    return [[bos, *ids[at * context + 1 : (at + 1) * context]] for at in range(count)]


def run(program: Path, arguments: Sequence[str | Path]) -> float:
    """Seconds that llama-imatrix takes; it finds its libraries beside itself."""
    started = time.monotonic()
    done = subprocess.run(
        [program, *arguments],
        env=os.environ | {"LD_LIBRARY_PATH": str(program.resolve().parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{program.name}: exit code {done.returncode}: {done.stderr.strip()[-600:]}")
    return time.monotonic() - started


def compare(ours: Imatrix, theirs: Imatrix) -> dict[str, dict[str, float]]:
    """By matrix: relative difference of the mean, and of its columns (median, 95th percentile, largest)."""
    found = {}
    for name in sorted(ours.values.keys() & theirs.values.keys()):
        a, b = ours.values[name].astype(np.float64), theirs.values[name].astype(np.float64)
        columns = np.abs(a - b) / np.maximum(b, 1e-30)
        figures = {
            "mean": abs(a.mean() / b.mean() - 1),
            "median": np.median(columns),
            "p95": np.quantile(columns, 0.95),
            "largest": columns.max(),
        }
        found[name] = {key: float(f"{value:.3g}") for key, value in figures.items()}
    return found


def ten(names: Sequence[str]) -> list[str]:
    """Ten names, from the first layer to the last, of every kind in turn."""
    of = {tuple(name.split(".", 2)[1:]): name for name in names}  # (layer, kind) -> name
    layers, kinds = sorted({int(layer) for layer, _ in of}), sorted({kind for _, kind in of})
    wanted = [(str(layers[turn * (len(layers) - 1) // 9]), kinds[turn % len(kinds)]) for turn in range(10)]
    return [of[pair] for pair in wanted if pair in of]


def merged(program: Path, gguf: Path, ours: Imatrix, theirs: Path, work: Path) -> dict[str, Any]:
    """What llama-imatrix makes of our file: alone, it must come back; with its own, counts must add up."""
    file = write_imatrix(ours, work / "ours.gguf", force=True)
    asked: list[str | Path] = ["-m", gguf, "-c", str(ours.context), "--in-file", file]
    run(program, [*asked, "-o", work / "alone.gguf"])
    run(program, [*asked, "--in-file", theirs, "-o", work / "both.gguf"])
    alone, sum_, other = (read_imatrix(path) for path in (work / "alone.gguf", work / "both.gguf", theirs))
    same = all(np.allclose(alone.values[name], ours.values[name], rtol=1e-5) for name in ours.values)
    shared = ours.counts.keys() & other.counts.keys()
    added = all((sum_.counts[name] == ours.counts[name] + other.counts[name]).all() for name in shared)
    return {"alone_is_ours": same and alone.values.keys() == ours.values.keys(), "counts_add_up": added}


def measure(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Everything, in a scratch folder."""
    text = read_text(args.text, 8 * args.chunks * args.context)
    chunks = chunks_of(args.model, text, args.context, args.chunks)
    (work / "text.txt").write_text(text, encoding="utf-8")
    gguf = args.gguf or export(args.model, work / "model.gguf")
    arguments: list[str | Path] = [
        "-m", gguf, "-f", work / "text.txt", "-o", work / "theirs.gguf", "-c", str(args.context),
        "-b", str(args.context), "--chunks", str(len(chunks)), "-t", str(args.threads), "--no-ppl",
    ]  # fmt: skip
    theirs_seconds = run(args.llama_imatrix, arguments)
    theirs = read_imatrix(work / "theirs.gguf")
    started = time.monotonic()
    ours = collect_on(args.model, chunks)
    figures = compare(ours, theirs)
    chosen = {name: figures[name] for name in ten(list(figures))}
    worst = {key: max(each[key] for each in figures.values()) for key in ("mean", "median", "p95", "largest")}
    return {
        "tokens": ours.tokens,
        "chunks": len(chunks),
        "context": args.context,
        "counts_equal": all((ours.counts[n] == theirs.counts[n]).all() for n in figures),
        "matrices": {"ours": len(ours.values), "llama.cpp": len(theirs.values), "compared": len(figures)},
        "ten": chosen,
        "worst_of_ten": max(each["mean"] for each in chosen.values()),
        "worst_of_all": worst,
        "within_limit": all(each["mean"] <= LIMIT for each in figures.values()),
        "seconds": {"torch": round(time.monotonic() - started, 1), "llama.cpp": round(theirs_seconds, 1)},
        "llama_imatrix_reads_ours": merged(args.llama_imatrix, gguf, ours, work / "theirs.gguf", work),
    }


def main() -> int:
    """Compare, write the figures, and fail if a matrix's mean is further off than the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llama-imatrix", type=Path, required=True, help="built from llama.cpp's source")
    parser.add_argument("--model", type=Path, required=True, help="a bf16 checkpoint's folder")
    parser.add_argument("--gguf", type=Path, help="its BF16 export, if there is one already")
    parser.add_argument("--text", type=Path, required=True, help="a .jsonl, .txt or .md file")
    parser.add_argument("--chunks", type=int, default=32)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "imatrix.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = measure(args, Path(work))
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "cpus": os.cpu_count(),
        "versions": {name: version(name) for name in ("torch", "transformers", "llama-cpp-python")}
        | {"python": platform.python_version()},
        "model": args.model.resolve().name,
        "text": f"{args.text.parent.name}/{args.text.name}",
    } | found
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    return 0 if found["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
