"""`mom quantize` to a given type: importance matrix, quantization, report.

A type chosen by measurement is in `mom.workflows.quantize_auto`.
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
from slices.errors import Unsupported
from slices.gguf.tensor_types import EMBEDDING_TENSORS
from slices.measure.compare_mode import CompareMode
from slices.measure.healing_kept import measure_healing_kept, record_healing_kept
from slices.progress import Progress
from slices.quant.coverage import explain_coverage, measure_coverage
from slices.quant.fit import imatrix_sha256
from slices.quant.imatrix import collect
from slices.quant.imatrix_file import Imatrix, write_imatrix
from slices.quant.quantize import Quantized, default_target, quantize, resolve_target
from slices.quant.recipe import make_recipe
from slices.quant.size import SizePrediction, predict_size
from slices.quant.trained_recipe import IMATRIX_FILE, TrainedRecipe, read_trained_imatrix, read_trained_recipe
from slices.quant.types import LLAMA_CPP, find_type
from slices.text.corpus import Corpus, Part
from slices.text.use import record_text_use, text_use

AUTO = "auto"
DEFAULT_TYPE = "Q4_K_M"
IMATRIX = "imatrix.gguf"


@dataclass(frozen=True)
class QuantizeOptions:
    """The options of the command; None leaves the choice to `slices`."""

    slice: str
    type: str
    output: Path | None = None
    imatrix: str | None = None
    embedding_type: str | None = None
    max_kl: float | None = None
    budget: int | None = None
    threads: int | None = None
    force: bool = False
    domain: str | None = None
    data: Path | None = None
    max_bytes: int | None = None
    compare: CompareMode = CompareMode.AUTO
    pad_rows: bool = False

    @property
    def has_goal(self) -> bool:
        """Whether the type is chosen by measurement."""
        return self.type == AUTO or self.max_kl is not None or self.budget is not None


def quantize_slice(options: QuantizeOptions) -> dict[str, Any]:
    """Quantize and report, as `mom quantize --json` prints it."""
    folder = manifest.find_or_checkpoint(options.slice)
    trained = _trained(options, folder)
    with console.progress_bar() as report:
        if trained is not None:
            imatrix = read_trained_imatrix(folder, trained)
        else:
            imatrix = _imatrix(options, folder, report)
        done = quantize(
            folder,
            options.type,
            options.output,
            options.force,
            report,
            options.threads,
            imatrix,
            trained.embedding_type or LLAMA_CPP if trained else options.embedding_type,
            pad_rows=options.pad_rows,
        )
        kept = healing_kept(folder, done, imatrix, report)
        found = judge_made(folder, done.path, options.compare, options.threads, report)
    return {
        "verdict": found,
        "healing_kept": kept,
        "path": str(done.path),
        "type": done.type,
        "bytes": done.bytes,
        "bits_per_weight": round(done.bits_per_weight, 3),
        "predicted_bytes": done.predicted.bytes,
        "seconds": round(done.seconds, 2),
        "sha256": done.sha256,
        "embedding_types": _embedding_types(done.predicted),
        "imatrix": None
        if imatrix is None
        else imatrix_report(folder, imatrix, IMATRIX_FILE if trained else IMATRIX),
        "ladder": [],
        "notes": [*_imatrix_notes(options), *_trained_notes(options, folder), *done.predicted.notes],
    }


def predict_slice(options: QuantizeOptions) -> dict[str, Any]:
    """The report of `quantize_slice` without writing; no importance matrix is measured for it."""
    folder = manifest.find_or_checkpoint(options.slice)
    trained, embedding_type, wanted = (
        _trained(options, folder),
        options.embedding_type,
        _wants_imatrix(options),
    )
    if trained is not None:
        embedding_type, wanted = trained.embedding_type or LLAMA_CPP, trained.imatrix_sha256 is not None
    found = predict_size(folder, options.type, embedding_type, with_imatrix=wanted, pad_rows=options.pad_rows)
    return {
        "path": str(options.output or default_target(folder, options.type, options.pad_rows)),
        "type": options.type,
        "bytes": found.bytes,
        "bits_per_weight": round(found.bits_per_weight, 3),
        "export_bytes": found.export_bytes,
        "embedding_types": _embedding_types(found),
        "types": dict(found.types),
        "imatrix": None,
        "ladder": [],
        "notes": [*_imatrix_notes(options), *_trained_notes(options, folder), *found.notes],
    }


def default_type(name: str) -> str:
    """The type of a slice where none is given: the one that it was healed for, else Q4_K_M."""
    trained = read_trained_recipe(manifest.find_or_checkpoint(name))
    return DEFAULT_TYPE if trained is None else trained.type


def _trained(options: QuantizeOptions, folder: Path) -> TrainedRecipe | None:
    """The recipe that the slice was healed for, where nothing else is asked for."""
    trained = read_trained_recipe(folder)
    if trained is None or options.imatrix is not None or options.type != trained.type or options.pad_rows:
        return None
    same = options.embedding_type in (None, trained.embedding_type or LLAMA_CPP)
    return trained if same else None


def _trained_notes(options: QuantizeOptions, folder: Path) -> list[str]:
    trained = read_trained_recipe(folder)
    if trained is None:
        return []
    if _trained(options, folder):
        return [trained.sentence]
    return [f"another recipe than the slice was healed for, which is the default (no option): {trained.type}"]


def uses_imatrix(type: str | None, imatrix: str | None) -> bool:
    """Whether a type has an importance matrix: requested and used by it, or needed and not refused."""
    if type is None:
        return imatrix == "domain"
    need = find_type(type).imatrix
    return need == "needed" if imatrix is None else imatrix == "domain" and need != "ignored"


def _wants_imatrix(options: QuantizeOptions) -> bool:
    """Whether to measure an importance matrix."""
    return uses_imatrix(options.type, options.imatrix)


def _imatrix_notes(options: QuantizeOptions) -> list[str]:
    if options.imatrix == "domain" and not _wants_imatrix(options):
        return [f"{options.type} ignores an importance matrix: none was measured"]
    return []


def _imatrix(options: QuantizeOptions, folder: Path, report: Progress) -> Imatrix | None:
    if not _wants_imatrix(options):
        return None
    make_recipe(options.type, options.embedding_type)  # refuse before minutes of work, not after
    resolve_target(folder, options.type, options.output, options.force, options.pad_rows)
    return domain_imatrix(folder, report)


def domain_imatrix(folder: Path, report: Progress) -> Imatrix:
    """The importance matrix of a slice on the calibration part of its own domain's text.

    It is also written beside the slice in llama.cpp's format.
    """
    text = _text(folder, report)
    found = collect(folder, text, progress=report)
    named = replace(found, datasets=(manifest.read(folder).domain,))
    write_imatrix(named, folder / IMATRIX, force=True)
    record_text_use(folder, text_use("imatrix", text.calibration(), Part.CALIBRATION))
    return named


def _text(folder: Path, report: Progress) -> Corpus:
    if not (folder / manifest.FILE).is_file():
        raise Unsupported(f"{folder} is no finished slice, so it has no domain to measure an imatrix on")
    made = manifest.read(folder)
    return own_text(made.domain, made, report)


def imatrix_report(folder: Path, imatrix: Imatrix, file: str = IMATRIX) -> dict[str, Any]:
    """The coverage of a slice by an importance matrix, and the text it was measured on."""
    checkpoint = open_checkpoint(folder)
    anatomy = read_anatomy(checkpoint.config)
    found = measure_coverage(anatomy, imatrix.values, match_tensors(checkpoint, anatomy)[0])
    return {
        "covered": found.covered,
        "quantizable": found.executed,
        "tokens": imatrix.tokens,
        "text_sha256": imatrix.sha256,
        "sha256": imatrix_sha256(imatrix),
        "file": str(folder / file),
        "explained": explain_coverage(found),
    }


def healing_kept(
    folder: Path, done: Quantized, imatrix: Imatrix | None, report: Progress
) -> dict[str, Any] | None:
    """The share of a slice's healing that the file keeps, recorded in slice.json; None if not healed."""
    weights = None if done.imatrix_sha256 is None else imatrix
    found = measure_healing_kept(
        folder, done.type, done.predicted.types, weights, done.recipe.pad_rows, report
    )
    if done.path.parent.resolve() == folder.resolve():
        record_healing_kept(folder, done.path.name, found)
    return None if found is None else found.to_json()


def _embedding_types(found: SizePrediction) -> dict[str, str]:
    return {name: found.types[name] for name in EMBEDDING_TENSORS if name in found.types}


def show_quantized(figures: dict[str, Any]) -> None:
    """Print a finished GGUF, or the prediction of one, with notes."""
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
    if figures.get("healing_kept"):
        _show_healing_kept(figures["healing_kept"])
    if figures.get("verdict"):
        show_verdict(figures["verdict"])
    for note in figures["notes"]:
        console.out.print(note, soft_wrap=True, markup=False)


def _show_healing_kept(found: dict[str, Any]) -> None:
    """The share of the healing's change that is kept, by kind of matrix; a warning below a half."""
    if found["share"] is None:
        console.out.print(f"healing kept: unknown, {found['reason']}", soft_wrap=True, markup=False)
        return
    shares = {"all matrices": found["share"], **found["by_kind"]}
    rows = [[kind, f"{share['value']:.1%} ± {share['stderr']:.1%}"] for kind, share in shares.items()]
    console.print_table(f"healing kept by {found['type']}", ["matrices", "share of the change"], rows)
    if found["warning"]:
        console.warn(found["warning"])
