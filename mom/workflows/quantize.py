"""`mom quantize`: of which type, with which importance matrix, and what came of it.

A type chosen by measurement is `mom.workflows.quantize_auto`'s.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mom.display import console
from mom.workflows.compare import judge_made, show_verdict
from mom.workflows.domain_text import own_text
from slices import manifest
from slices.architecture.anatomy import match_tensors, read_anatomy
from slices.checkpoint import open_checkpoint
from slices.errors import BadConfig, Unsupported
from slices.gguf.tensor_types import TABLES
from slices.measure.compare_mode import CompareMode
from slices.progress import Progress
from slices.quant.coverage import explain_coverage, measure_coverage
from slices.quant.fit import digest
from slices.quant.imatrix import collect
from slices.quant.imatrix_file import Imatrix, write_imatrix
from slices.quant.quantize import default_target, place, quantize
from slices.quant.recipe import make_recipe
from slices.quant.size import Prediction, predict
from slices.quant.types import find_type
from slices.text.corpus import Corpus

AUTO = "auto"
IMATRIX = "imatrix.gguf"


@dataclass(frozen=True)
class Wish:
    """What the command line asks for; what is None there is chosen here or in `slices`."""

    slice: str
    type: str
    output: Path | None = None
    imatrix: str | None = None
    tables: str | None = None
    max_kl: float | None = None
    budget: str | None = None
    threads: int | None = None
    force: bool = False
    domain: str | None = None
    data: Path | None = None
    limit: int | None = None
    compare: CompareMode = CompareMode.AUTO

    @property
    def measures(self) -> bool:
        """Whether what a type is worth decides."""
        return self.type == AUTO or self.max_kl is not None or self.budget is not None


def quantize_slice(wish: Wish) -> dict[str, Any]:
    """Quantize and report, as `mom quantize --json` prints it."""
    folder = manifest.find_or_checkpoint(wish.slice)
    with console.progress_bar() as report:
        imatrix = _imatrix(wish, folder, report)
        label = f"quantize {folder.name} to {wish.type}"
        done = quantize(
            folder,
            wish.type,
            wish.output,
            wish.force,
            lambda n, of: report(label, n, of),
            wish.threads,
            imatrix,
            wish.tables,
        )
        found = judge_made(folder, done.path, wish.compare, wish.threads, report)
    return {
        "verdict": found,
        "path": str(done.path),
        "type": done.type,
        "bytes": done.bytes,
        "bits_per_weight": round(done.bits_per_weight, 3),
        "predicted_bytes": done.predicted.bytes,
        "seconds": round(done.seconds, 2),
        "sha256": done.sha256,
        "tables": _tables(done.predicted),
        "imatrix": None if imatrix is None else covered(folder, imatrix),
        "ladder": [],
        "notes": [*_imatrix_notes(wish), *done.predicted.notes],
    }


def predict_slice(wish: Wish) -> dict[str, Any]:
    """What `quantize_slice` would write, in the same words; an importance matrix is not measured for it."""
    folder = manifest.find_or_checkpoint(wish.slice)
    found = predict(folder, wish.type, wish.tables, with_imatrix=_wants_imatrix(wish))
    return {
        "path": str(wish.output or default_target(folder, wish.type)),
        "type": wish.type,
        "bytes": found.bytes,
        "bits_per_weight": round(found.bits_per_weight, 3),
        "export_bytes": found.export_bytes,
        "tables": _tables(found),
        "types": dict(found.types),
        "imatrix": None,
        "ladder": [],
        "notes": [*_imatrix_notes(wish), *found.notes],
    }


def _wants_imatrix(wish: Wish) -> bool:
    """Whether to measure an importance matrix: if asked for and heeded, or needed and not refused."""
    if wish.imatrix not in (None, "domain", "none"):
        raise BadConfig(f"--imatrix {wish.imatrix}: expected domain or none")
    need = find_type(wish.type).imatrix
    return need == "needed" if wish.imatrix is None else wish.imatrix == "domain" and need != "ignored"


def _imatrix_notes(wish: Wish) -> list[str]:
    if wish.imatrix == "domain" and not _wants_imatrix(wish):
        return [f"{wish.type} takes no heed of an importance matrix: none was measured"]
    return []


def _imatrix(wish: Wish, folder: Path, report: Progress) -> Imatrix | None:
    if not _wants_imatrix(wish):
        return None
    make_recipe(wish.type, wish.tables)  # refuse before minutes of work, not after
    place(folder, wish.type, wish.output, wish.force)
    return domain_imatrix(folder, report)


def domain_imatrix(folder: Path, report: Progress) -> Imatrix:
    """The importance matrix of a slice on the calibration part of its own domain's text.

    It is left beside the slice in llama.cpp's form too, for any tool that reads that.
    """
    text = _text(folder, report)
    found = collect(folder, text, progress=lambda n, of: report("importance matrix", n, of))
    named = replace(found, datasets=(manifest.read(folder).domain,))
    write_imatrix(named, folder / IMATRIX, force=True)
    return named


def _text(folder: Path, report: Progress) -> Corpus:
    if not (folder / manifest.FILE).is_file():
        raise Unsupported(f"{folder} is no finished slice, so it has no domain to measure an imatrix on")
    made = manifest.read(folder)
    return own_text(made.domain, made, report)


def covered(folder: Path, imatrix: Imatrix) -> dict[str, Any]:
    """What an importance matrix covers of a slice, and what it was measured on."""
    checkpoint = open_checkpoint(folder)
    anatomy = read_anatomy(checkpoint.config)
    found = measure_coverage(anatomy, imatrix.values, match_tensors(checkpoint, anatomy)[0])
    return {
        "covered": found.covered,
        "quantizable": found.executed,
        "tokens": imatrix.tokens,
        "text_sha256": imatrix.sha256,
        "sha256": digest(imatrix),
        "file": str(folder / IMATRIX),
        "explained": explain_coverage(found),
    }


def _tables(found: Prediction) -> dict[str, str]:
    return {name: found.types[name] for name in TABLES if name in found.types}


def show_quantized(figures: dict[str, Any]) -> None:
    """A finished GGUF, or the prediction of one, in a line, and what else there is to say."""
    console.out.print(
        f"{figures['path']}: {figures['type']}, {figures['bytes']:,} bytes "
        f"({console.size(figures['bytes'])}), {figures['bits_per_weight']} bits per weight",
        soft_wrap=True,
        markup=False,
    )
    if "export_bytes" in figures:
        export = console.size(figures["export_bytes"])
        console.out.print(f"nothing was written; the bf16 export on the way would take {export}")
    if figures["imatrix"]:
        found = figures["imatrix"]
        console.out.print(
            f"importance matrix: {found['covered']} of {found['quantizable']} matrices, "
            f"{found['tokens']:,} tokens of the domain's text; {found['file']}",
            soft_wrap=True,
            markup=False,
        )
        console.out.print(found["explained"], soft_wrap=True, markup=False)
    if figures.get("verdict"):
        show_verdict(figures["verdict"])
    for note in figures["notes"]:
        console.out.print(note, soft_wrap=True, markup=False)
