"""Hold our bits per byte and KL against llama.cpp's own `llama-perplexity` on the same tokens and windows.

    python -m benchmarks.quantization.perplexity MODEL --corpus FILE --llama-perplexity PATH --types
    Q8_0,Q4_K_M,Q2_K

llama-perplexity cuts one stream of tokens every `--context`, replaces the first of each window by a bos, and
scores the second half of each. So do we here. It also reads as many tokens at once as we do (`--batch`).
Its attention sums otherwise in a batch of fewer than 64, which moves the divergence of a Q4_K_M by 1.5 %.
Its reference is a file of the BF16 model's logits in 16 bits, ours a `SampledDistribution` of that model.
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.paths import RESULTS
from benchmarks.quantization.imatrix import chunks_of, read_text
from slices.export import export
from slices.measure.divergence import Divergence, measure_divergence
from slices.measure.heldout import Heldout, Window
from slices.measure.reference import compute_reference
from slices.measure.tokenized import TokenWindow
from slices.model_ref import locate
from slices.quant.quantize import quantize
from slices.runtimes.llama_runtime import LlamaRuntime

OUT = RESULTS / "perplexity.json"
FIGURES = {
    "ppl": r"Mean PPL\(Q\)\s*:\s*([-\d.]+)",
    "kl": r"Mean\s+KLD:\s*([-\d.]+)",
    "kl_median": r"Median\s+KLD:\s*([-\d.]+)",
    "kl_p99": r"99\.0%\s+KLD:\s*([-\d.]+)",
    "kl_max": r"Maximum KLD:\s*([-\d.]+)",
    "same_top1": r"Same top p:\s*([-\d.]+)",
}


def theirs(program: Path, arguments: Sequence[str | Path]) -> str:
    """What llama-perplexity prints; it finds its libraries beside itself."""
    done = subprocess.run(
        [program, *arguments],
        env=os.environ | {"LD_LIBRARY_PATH": str(program.resolve().parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{program.name}: exit code {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout + done.stderr


def ours(file: Path, base: Path, chunks: Sequence[Sequence[int]], threads: int) -> Divergence:
    """The same windows, their second halves scored, against the BF16 file."""
    windows = [TokenWindow(tuple(chunk), len(chunk) // 2 + 1) for chunk in chunks]
    text = Heldout(tuple(Window(number, "x" * each.scored) for number, each in enumerate(windows)), "")
    runtime = LlamaRuntime(base, threads, len(chunks[0]))
    reference = compute_reference("BF16", runtime, text, windows)
    runtime.close()
    runtime = LlamaRuntime(file, threads, len(chunks[0]))
    found = measure_divergence(file.stem, runtime, reference)
    runtime.close()
    return found


def figures(found: Divergence) -> dict[str, float]:
    """Our figures under the names of `FIGURES`; bits per byte are bits a token here, a byte each."""
    quantiles = found.kl_quantiles
    return {
        "ppl": 2**found.bits_per_byte.value,
        "kl": found.kl.value,
        "kl_median": quantiles.median,
        "kl_p99": quantiles.p99,
        "kl_max": quantiles.max,
        "same_top1": 100 * found.same_top1.value,
    }


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--llama-perplexity", type=Path, required=True, help="built from llama.cpp's source")
    parser.add_argument("--types", default="Q8_0,Q4_K_M,Q2_K")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=12)
    parser.add_argument("--batch", type=int, default=64, help="tokens at once; ours reads as many")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    return parser.parse_args()


def main() -> None:
    """Export, quantize, measure twice, write both with their ratios."""
    args = arguments()
    folder = locate(args.model)
    text = read_text(args.corpus, 8 * args.context * args.chunks)
    chunks = chunks_of(folder, text, args.context, args.chunks)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MOM_HOME"] = str(Path(scratch) / "home")
        base, prompt, logits = (Path(scratch) / name for name in ("bf16.gguf", "text.txt", "logits"))
        export(folder, base)
        prompt.write_text(text, encoding="utf-8")
        shared: list[str | Path] = [
            "-f",
            prompt,
            "-c",
            str(args.context),
            "-b",
            str(args.batch),
            "-ub",
            str(args.batch),
            "--chunks",
            str(len(chunks)),
        ]
        shared += ["-t", str(args.threads), "--kl-divergence-base", logits]
        theirs(args.llama_perplexity, ["-m", base, *shared])
        for type in args.types.split(","):
            file = Path(scratch) / f"{type}.gguf"
            quantize(folder, type, file, exported=base)
            printed = theirs(args.llama_perplexity, ["-m", file, *shared, "--kl-divergence"])
            known = {
                name: float(found[1])
                for name, pattern in FIGURES.items()
                if (found := re.search(pattern, printed))
            }
            mine = figures(ours(file, base, chunks, args.threads))
            ratios = {name: mine[name] / value for name, value in known.items() if value}
            rows.append({"type": type, "ours": mine, "llama_perplexity": known, "ratio": ratios})
            print(json.dumps(rows[-1], indent=2), flush=True)
            file.unlink()
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "model": folder.name,
        "tokens": sum(len(chunk) - 1 - len(chunk) // 2 for chunk in chunks),
        "context": args.context,
        "versions": {name: version(name) for name in ("mom-slicer", "llama-cpp-python")},
        "rows": rows,
    }
    args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
