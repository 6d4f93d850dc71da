"""Vocabulary-cut slices against the full-vocabulary quants of their parent, by the bytes of the file.

For each domain: cut the parent's vocabulary to some numbers of rows by the domain's calibration text,
quantize the slices and the parent to some types, and measure all on the same held-out text: bits per byte,
paired by document with the parent in Q4_K_M and in bf16; KL to the parent on the kept tokens; the
probability that the parent gives to the dropped ones. A type may name one for the tables: Q4_K_M:Q4_0. Each
slice's file also gets the verdict of `mom quantize`, against the parent's best plain quant of no more bytes.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.paths import RESULTS
from slices.checkpoint import weight_files
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.errors import Unsupported
from slices.estimate import Values, ratio
from slices.files.atomic import write_text
from slices.measure.divergence import Divergence, measure_divergence
from slices.measure.dominated import verdict
from slices.measure.heldout import Heldout, cut_heldout, read_calibration, read_selection, read_verdict
from slices.measure.overlap import without_seen
from slices.measure.reference import Reference, compute_reference
from slices.measure.rival import RivalText, find_rival
from slices.measure.token_map import token_map
from slices.measure.tokenized import TokenWindow, tokenize_windows
from slices.model_ref import locate
from slices.quant.quantize import quantize
from slices.quant.types import LLAMA_CPP
from slices.runtimes.open import open_runtime

BASE = "Q4_K_M"  # of the parent: what the others are held against
SHARE, LOSS = 0.40, 0.05  # the target: at most this share of its bytes, at most this much more bits per byte
PARENT = ("Q8_0", "Q4_K_M", "Q2_K", "Q4_K_M:Q5_0", "Q2_K:Q4_0")
SLICES = (
    "16384/Q8_0", "16384/Q4_K_M", "32768/Q8_0", "32768/Q6_K", "32768/Q4_K_M", "32768/Q4_K_M:Q5_0",
    "32768/Q2_K", "46080/Q4_K_M", "46080/Q4_K_M:Q5_0", "65536/Q4_K_M", "65536/Q4_K_M:Q5_0",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Where everything is, and what to measure."""

    parent: Path
    data: Path
    work: Path
    threads: int
    parent_types: tuple[str, ...]
    slice_types: dict[int, list[str]]  # by rows


@dataclass(frozen=True)
class Measured:
    """One file and what it did."""

    rows: int | None  # None: the whole vocabulary
    type: str
    bytes: int
    found: Divergence


def measured_files(
    folder: Path, rows: int | None, types: Sequence[str], reference: Reference, settings: Settings
) -> Iterator[Measured]:
    """Quantize, measure and, for a slice, delete each file in turn."""
    for spec in types:
        type, _, embedding_type = spec.partition(":")
        out = settings.work / f"{folder.name}-{spec.replace(':', '-')}.gguf"
        if not out.is_file():
            try:
                quantize(
                    folder, type, out, threads=settings.threads, embedding_type=embedding_type or LLAMA_CPP
                )
            except Unsupported as error:
                print(f"  {spec}: {error}", flush=True)
                continue
        runtime = open_runtime(folder, out.resolve(), settings.threads)
        try:
            found = measure_divergence(spec, runtime, reference)
        finally:
            runtime.close()
        size = out.stat().st_size
        print(f"  {folder.name} {spec}: {size:,} bytes, {format_divergence(found)}", flush=True)
        if rows is not None:
            out.unlink()
        yield Measured(rows=rows, type=spec, bytes=size, found=found)


def format_divergence(found: Divergence) -> str:
    """A result in short."""
    bits, kl = found.bits_per_byte, found.kl
    return f"{bits.value:.4f} ± {bits.stderr:.4f} bits per byte, KL {kl.value:.4f} ± {kl.stderr:.4f}"


def measured_parent(text: Heldout, settings: Settings) -> tuple[list[Measured], Values]:
    """The parent's files, and the bits by document of its bf16 form."""
    runtime = open_runtime(settings.parent, None, settings.threads)
    reference = compute_reference("parent", runtime, text)
    runtime.close()
    found = list(measured_files(settings.parent, None, settings.parent_types, reference, settings))
    return found, found[0].found.sums.reference_bits


def measured_slices(domain: str, text: Heldout, settings: Settings) -> Iterator[Measured]:
    """The files of every slice of a domain."""
    for rows, types in settings.slice_types.items():
        folder = slice_of(domain, rows, settings)
        tokens = windows(folder, text, settings)
        runtime = open_runtime(settings.parent, None, settings.threads)
        vocabulary = token_map(folder, settings.parent)
        reference = compute_reference("parent", runtime, text, tokens, vocabulary)
        runtime.close()
        yield from measured_files(folder, rows, types, reference, settings)


def slice_of(domain: str, rows: int, settings: Settings) -> Path:
    """The slice, cut unless it is there."""
    folder = settings.work / f"{domain}-{rows}"
    if not folder.is_dir():
        corpus = settings.data / "corpora" / domain / "calibration.jsonl"
        cut(
            SliceRequest(
                domain=domain,
                layers="all",
                model=str(settings.parent),
                vocab=str(rows),
                corpus=(corpus,),
                output=folder,
            )
        )
    return folder


def windows(folder: Path, text: Heldout, settings: Settings) -> tuple[TokenWindow, ...]:
    """Each window as the slice's tokens."""
    runtime = open_runtime(folder, None, settings.threads)
    try:
        return tokenize_windows(folder.name, runtime, text)
    finally:
        runtime.close()


def figures(each: Measured, base: Measured, bf16: Values) -> dict[str, Any]:
    """A file beside the parent's two forms; differences are shares of their bits."""
    found, bits = each.found, each.found.sums.bits
    more = ratio(bits - base.found.sums.bits, base.found.sums.bits)
    row = {
        "rows": each.rows,
        "type": each.type,
        "bytes": each.bytes,
        "share": each.bytes / base.bytes,
        "bits_per_byte": asdict(found.bits_per_byte),
        "against_base": asdict(more),
        "against_bf16": asdict(ratio(bits - bf16, bf16)),
        "kl": {"mean": found.kl.value, "stderr": found.kl.stderr, "p99": found.kl_quantiles.p99},
        "kl_sampled_tokens": found.kl_sampled_tokens,
        "same_top1": asdict(found.same_top1),
        "lost_mass": asdict(found.lost_mass) if found.lost_mass else None,
        "tokens": found.tokens,
    }
    row["meets_target"] = each.bytes / base.bytes <= SHARE and more.value <= LOSS
    return row


def verdict_of(each: Measured, domain: str, text: RivalText, settings: Settings) -> dict[str, Any]:
    """The verdict on a slice's file, whose rival is chosen on the selection part of the calibration file."""
    sums = each.found.sums
    rival = find_rival(settings.parent, text, each.bytes, settings.threads)
    found = verdict(
        variant=f"{each.rows}/{each.type}",
        domain=domain,
        bits=sums.bits,
        sizes=sums.bytes,
        rival=rival,
        text=text,
    )
    return found.model_dump(mode="json")


def rival_text(domain: str, text: Heldout, limit: int, settings: Settings) -> RivalText:
    """The domain's text for the importance matrix and the choice of rivals, beside the reported one."""
    selection = cut_heldout(read_selection(settings.data, domain).documents, limit)
    return RivalText(read_calibration(settings.data, domain).documents, selection, text)


def unseen_documents(domain: str, data: Path) -> list[str]:
    """Held-out documents that repeat neither calibration nor selection text."""
    read = [*read_calibration(data, domain).documents, *read_selection(data, domain).documents]
    return without_seen(read_verdict(data, [domain]), {domain: read})[0][domain]


def bench_domain(domain: str, limit: int, settings: Settings) -> dict[str, Any]:
    """All files on one domain."""
    text = cut_heldout(unseen_documents(domain, settings.data), limit)
    print(f"{domain}: {text.documents} documents, {text.nbytes:,} bytes", flush=True)
    parents, bf16 = measured_parent(text, settings)
    base = next(each for each in parents if each.type == BASE)
    slices = list(measured_slices(domain, text, settings))
    rivals = rival_text(domain, text, limit, settings)
    return {
        "documents": text.documents,
        "bytes": text.nbytes,
        "sha256": text.sha256,
        "bf16": {
            "bytes": sum(file.stat().st_size for file in weight_files(settings.parent)),
            "bits_per_byte": asdict(base.found.reference_bits_per_byte),
        },
        "files": [
            *(figures(each, base, bf16) for each in parents),
            *(
                figures(each, base, bf16) | {"verdict": verdict_of(each, domain, rivals, settings)}
                for each in slices
            ),
        ],
    }


def main() -> None:
    """Measure the domains that are not in the output yet, and write it after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="has corpora/<domain>/heldout.jsonl")
    parser.add_argument("--model", default="gemma-3-270m", help="the parent: a folder or a name")
    parser.add_argument("--work", type=Path, required=True, help="a scratch folder with 10 GB of room")
    parser.add_argument("--domains", nargs="+", default=["law", "biochem", "computing"])
    parser.add_argument("--slices", nargs="+", default=SLICES, help="ROWS/TYPE or ROWS/TYPE:TABLES")
    parser.add_argument("--parent-types", nargs="+", default=PARENT)
    parser.add_argument("--limit", type=int, default=24_000, help="bytes of text a domain")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "equal_bytes.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    parent = locate(args.model)
    types: dict[int, list[str]] = {}
    for spec in args.slices:
        rows, _, type = spec.partition("/")
        types.setdefault(int(rows), []).append(type)
    settings = Settings(
        parent=parent,
        data=args.data,
        work=args.work,
        threads=args.threads,
        parent_types=tuple(args.parent_types),
        slice_types=types,
    )
    found: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "parent": parent.name,
        "versions": {name: version(name) for name in ("llama-cpp-python", "torch", "transformers")},
        "base": BASE,
        "target": {"share": SHARE, "loss": LOSS},
        "domains": {},
    }
    if args.output.is_file():
        found["domains"] = json.loads(args.output.read_text())["domains"]
    for domain in args.domains:
        if domain not in found["domains"]:
            found["domains"][domain] = bench_domain(domain, args.limit, settings)
            write_text(args.output, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
