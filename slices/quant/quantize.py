"""A slice as a quantized GGUF: predict the size, export, quantize, smoke-test, record it in slice.json.

llama.cpp quantizes in a child process, since it may abort. A file that does not load, or tokenizes text
otherwise than the slice, never gets its name. Its quality is measured in `slices.report.evaluate`.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from slices import manifest
from slices.errors import BadCheckpoint, NotFound
from slices.export import write_gguf
from slices.files.atomic import refuse_existing, staged
from slices.files.disk_space import check_free_space, map_full_disk_error
from slices.files.temp_files import anonymous_file, link_to
from slices.gguf.header import read_gguf_header
from slices.progress import Progress, no_progress
from slices.quant.fit import fit_imatrix, imatrix_sha256, save_values
from slices.quant.imatrix_file import Imatrix
from slices.quant.quantizer import make_params, run_quantizer, verify, verify_tokens
from slices.quant.recipe import NOTHING, Recipe, check_imatrix, gguf_metadata, make_recipe
from slices.quant.size import SizePrediction, check_padding_pays, model_name, predict_from_export
from slices.quant.types import TYPES

__all__ = ["TYPES", "Quantized", "default_target", "quantize", "record_gguf", "resolve_target"]


@dataclass(frozen=True)
class Quantized:
    """A finished GGUF. `bits_per_weight` counts tensor data only, norms included."""

    path: Path
    type: str
    bytes: int
    bits_per_weight: float
    sha256: str
    seconds: float
    recipe: Recipe
    predicted: SizePrediction
    imatrix_sha256: str | None = None


@dataclass(frozen=True)
class _QuantizeJob:
    folder: Path
    recipe: Recipe
    target: Path
    threads: int
    imatrix: Imatrix | None
    exported: Path | None  # a BF16 GGUF that exists already, which stays
    progress: Progress

    @property
    def weights(self) -> Imatrix | None:
        """The importance matrix, where the type uses one."""
        return None if self.recipe.type == "BF16" else self.imatrix

    def temp_file(self, label: str) -> AbstractContextManager[Path]:
        """A temporary file beside the target, which error messages call `label`."""
        return anonymous_file(self.target.parent, label)


def quantize(
    folder: Path,
    type: str,
    out: Path | None = None,
    force: bool = False,
    progress: Progress = no_progress,
    threads: int | None = None,
    imatrix: Imatrix | None = None,
    embedding_type: str | None = None,
    overrides: Mapping[str, str] = NOTHING,
    pure: bool = False,
    exported: Path | None = None,
    pad_rows: bool = False,
) -> Quantized:
    """Write the checkpoint in `folder` as a GGUF of `type`, by default to `<folder>/<name>-<TYPE>.gguf`.

    Args:
        out: where to, needed for a folder that is no finished slice.
        force: replace what is there.
        threads: processor threads; by default every core.
        imatrix: of this slice; BF16 ignores it.
        tables, overrides, pure: as in `slices.quant.recipe.make_recipe`.
        exported: a bf16 GGUF of this slice to begin with, rather than export one; it is left as it is.
        pad_rows: pad hidden states to a multiple of 256, so that `type` fits every row; refused where the
            file is no smaller by it. Not with `exported`.

    Raises:
        Unsupported: the recipe cannot be, lacks an importance matrix, or llama.cpp cannot express the slice.
        NotFound: there is no slice, or no `out` for a plain checkpoint.
        Exists: the output is there and `force` is false.
        BadConfig: the output's name does not fit into slice.json.
        BadCheckpoint: the importance matrix is of another slice.
        SliceError: the disk has not the room.
        RunFailed: llama.cpp failed, the disk is full, or the result does not run. Nothing is left behind.
    """
    started = perf_counter()
    recipe = make_recipe(type, embedding_type, overrides, pure, pad_rows)
    check_imatrix(recipe, imatrix is not None)
    if pad_rows:
        check_padding_pays(folder, recipe, imatrix is not None)
    target, replace = resolve_target(folder, type, out, force, pad_rows)
    job = _QuantizeJob(
        folder=folder,
        recipe=recipe,
        target=target,
        threads=threads or os.cpu_count() or 1,
        imatrix=imatrix,
        exported=exported,
        progress=progress,
    )
    with map_full_disk_error(target):
        with staged(target, replace) as partial, job.temp_file(str(target)) as result:
            predicted = _write(job, result)
            verify(result, folder)
            done = _describe(job, result, predicted, started)
            link_to(result, partial)
        record_gguf(folder, done)
    return done


def default_target(folder: Path, type: str, pad_rows: bool = False) -> Path:
    """The default path of a slice's GGUF.

    Raises:
        NotFound: `folder` is no finished slice.
    """
    if not (folder / manifest.FILE).is_file():
        raise NotFound(f"{folder} is no finished slice (no {manifest.FILE}); say with -o where the GGUF goes")
    return folder / f"{manifest.read(folder).name}-{type}{'-padded' if pad_rows else ''}.gguf"


def resolve_target(
    folder: Path, type: str, out: Path | None, force: bool, pad_rows: bool = False
) -> tuple[Path, bool]:
    """The path of the GGUF, and whether it may replace what is there.

    What is there may always be replaced if a killed run left it: ours and in the slice, but not known to
    slice.json, so nothing uses it.

    Raises:
        NotFound, Exists, BadConfig: as `quantize`.
    """
    target = out or default_target(folder, type, pad_rows)
    if _is_in(folder, target):
        manifest.check_file(target.name)
        force = force or _is_left_over(folder, target)
    refuse_existing(target, force)
    return target, force


def _is_in(folder: Path, target: Path) -> bool:
    return (folder / manifest.FILE).is_file() and target.resolve().parent == folder.resolve()


def _is_left_over(folder: Path, target: Path) -> bool:
    """Whether `target` is of a run that was killed between naming the file and recording it."""
    if not target.is_file() or any(each.file == target.name for each in manifest.read(folder).quantized):
        return False
    try:
        return "mom.weights_sha256" in read_gguf_header(target).metadata
    except BadCheckpoint:
        return False


def _write(job: _QuantizeJob, result: Path) -> SizePrediction:
    """Write the file, after its tokens and its size are checked."""
    if job.exported is not None:
        return _write_from(job, job.exported, result)
    with job.temp_file(f"the BF16 export of {job.folder}") as exported:
        write_gguf(job.folder, exported, model_name(job.folder), data=False, pad_rows=job.recipe.pad_rows)
        verify_tokens(exported, job.folder)
        return _write_from(job, exported, result)


def _write_from(job: _QuantizeJob, source: Path, result: Path) -> SizePrediction:
    predicted = predict_from_export(source, job.recipe, job.weights is not None)
    _check_space(job, predicted)
    with job.temp_file(f"the importance matrix of {job.folder}") as values:
        if job.weights is not None:
            save_values(fit_imatrix(job.weights, read_gguf_header(source), predicted.types), values)
        if job.recipe.type != "BF16":
            _fill(job, source)
            _quantize(job, source, result, values)
        elif job.exported is None:
            _fill(job, result)
        else:
            shutil.copyfile(job.exported, result)
    return predicted


def _check_space(job: _QuantizeJob, predicted: SizePrediction) -> None:
    if job.exported is not None or job.recipe.type == "BF16":
        check_free_space(job.target, predicted.bytes, "the result")
        return
    what = f"{predicted.export_bytes:,} for the bf16 export on the way, {predicted.bytes:,} for the result"
    check_free_space(job.target, predicted.export_bytes + predicted.bytes, what)


def _fill(job: _QuantizeJob, source: Path) -> None:
    if job.exported is None:
        write_gguf(job.folder, source, model_name(job.folder), pad_rows=job.recipe.pad_rows)


def _quantize(job: _QuantizeJob, source: Path, result: Path, values: Path) -> None:
    metadata = gguf_metadata(job.recipe, imatrix_sha256(job.weights) if job.weights else None)
    weights = values if job.weights else None
    with map_full_disk_error(job.target, result):
        run_quantizer(
            make_params(source, result, job.recipe, job.threads, weights, metadata=metadata),
            f"quantize {job.folder.name} to {job.recipe.type}",
            job.progress,
        )


def _describe(job: _QuantizeJob, result: Path, predicted: SizePrediction, started: float) -> Quantized:
    with result.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Quantized(
        path=job.target,
        type=job.recipe.type,
        bytes=result.stat().st_size,
        bits_per_weight=read_gguf_header(result).bits_per_weight,
        sha256=sha256,
        seconds=perf_counter() - started,
        recipe=job.recipe,
        predicted=predicted,
        imatrix_sha256=imatrix_sha256(job.weights) if job.weights else None,
    )


def record_gguf(folder: Path, done: Quantized) -> None:
    """Record the file in slice.json, if it lies beside it. Measurements of a file it replaced are dropped."""
    if not _is_in(folder, done.path):
        return
    slice_ = manifest.read(folder)
    entry = manifest.Quantized(
        file=done.path.name,
        type=done.type,
        bytes=done.bytes,
        bits_per_weight=done.bits_per_weight,
        sha256=done.sha256,
        embedding_type=done.recipe.embedding_type,
        overrides=dict(done.recipe.overrides),
        pure=done.recipe.pure,
        pad_rows=done.recipe.pad_rows,
        imatrix_sha256=done.imatrix_sha256,
    )
    others = [each for each in slice_.quantized if each.file != entry.file]
    measured = [each for each in slice_.measurements if each.variant != entry.file]
    update = {"quantized": [*others, entry], "measurements": measured}
    try:
        manifest.write(folder, slice_.model_copy(update=update))
    except OSError:
        done.path.unlink()
        raise
