"""One structure of a search: cut it, predict file sizes, heal it if asked, quantize and measure the largest
that fit.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from slices import manifest
from slices.cut.pipeline import cut, plan_cut
from slices.cut.request import SliceRequest
from slices.errors import RunFailed
from slices.estimate import Values, ratio
from slices.export import write_gguf
from slices.heal.record import NoImprovement
from slices.measure.bits_per_byte import score_text
from slices.measure.divergence import Divergence, measure_divergence
from slices.measure.heldout import Heldout
from slices.measure.reference import Reference, compute_reference
from slices.measure.token_map import token_map
from slices.measure.tokenized import tokenize_windows
from slices.progress import Progress
from slices.quant.quantize import quantize
from slices.quant.recipe import make_recipe
from slices.quant.size import model_name, predict_sizes
from slices.runtimes.open import open_runtime
from slices.search.candidates import FilePlan, Structure, largest_fitting, may_fit
from slices.search.frontier import Candidate, file_label, healed_label
from slices.search.healing import heal_cut
from slices.search.request import SearchRequest


@dataclass(frozen=True)
class TrialContext:
    """What every trial of a search shares.

    Attributes:
        parent_bits: bits of each document of `text` under the parent, (documents,).
        document_bytes: (documents,).
        text: the selection text.
        scratch: a folder for temporary files.
    """

    request: SearchRequest
    parent: Path
    text: Heldout
    parent_bits: Values
    document_bytes: Values
    scratch: Path
    progress: Progress

    @property
    def threads(self) -> int | None:
        """Processor threads; None for every core."""
        return self.request.threads


@dataclass(frozen=True)
class Skipped:
    """A structure or file that was not measured, and why; `bytes` is its predicted size."""

    label: str
    bytes: int
    reason: str


def measure_parent(
    parent: Path, text: Heldout, threads: int | None, progress: Progress
) -> tuple[Values, Values]:
    """Bits and bytes of each document under the parent, in its own tokens."""
    runtime = open_runtime(parent, None, threads)
    try:
        score = score_text("the parent", runtime, text, progress=progress)
    finally:
        runtime.close()
    return score.bits, score.bytes


def parent_reference(
    name: str, folder: Path, parent: Path, text: Heldout, threads: int | None, progress: Progress
) -> Reference:
    """The parent's distributions on `text` in the tokens of the slice in `folder`, called `name`."""
    own = open_runtime(folder, None, threads)
    try:
        windows = tokenize_windows(name, own, text)
    finally:
        own.close()
    recipe = manifest.read(folder).recipe
    vocabulary = None if recipe["vocab"] == "all" else token_map(folder, parent)
    runtime = open_runtime(parent, None, threads)
    try:
        return compute_reference("the parent", runtime, text, windows, vocabulary, progress)
    finally:
        runtime.close()


def request_for(request: SliceRequest, structure: Structure, target: Path) -> SliceRequest:
    """The request that cuts `structure` into `target`, under the final slice's name: it is in the GGUF."""
    return replace(
        request, output=target, name=request.slice_name, force=False,
        layers=structure.layers, vocab=structure.vocab, ffn=structure.ffn,
    )  # fmt: skip


def try_structure(structure: Structure, context: TrialContext) -> Iterator[Candidate | Skipped]:
    """The results of a structure: the measured files, and those that were skipped."""
    folder, budget = context.scratch / "slice", context.request.budget
    request = request_for(context.request.cut, structure, folder)
    _, plan, _ = plan_cut(request, context.progress, measure=False)
    if not may_fit(plan.nbytes, budget):
        yield Skipped(str(structure), plan.nbytes, "over the budget in every type")
        return
    shutil.rmtree(folder, ignore_errors=True)
    cut(request, context.progress)
    files = _plan_files(folder, context)
    chosen = largest_fitting(files, budget)
    for type, embedding_type, nbytes in files:
        if (type, embedding_type) not in chosen:
            reason = "over the budget" if nbytes > budget else "a larger one fits"
            yield Skipped(file_label(structure, type, embedding_type), nbytes, reason)
    if chosen:
        reference = parent_reference(
            str(structure), folder, context.parent, context.text, context.threads, context.progress
        )
        largest = max(nbytes for _, _, nbytes in files if nbytes <= budget)
        for form in _forms(structure, folder, largest, context):
            if isinstance(form, Skipped):
                yield form
            else:
                yield from _measure_files(structure, form, chosen, reference, context)
    shutil.rmtree(folder)


@dataclass(frozen=True)
class _Form:
    """The weights of a structure: as cut, or healed. The fields are those of `Candidate`."""

    folder: Path
    heal_steps: int = 0
    note: str = ""


def _forms(
    structure: Structure, folder: Path, nbytes: int, context: TrialContext
) -> Iterator["_Form | Skipped"]:
    """What is measured: the cut, or where candidates are healed the healed cut, and the parent as both."""
    config = context.request.healing
    if config is None or structure.whole:
        yield _Form(folder)
    if config is None:
        return
    try:
        healed = heal_cut(context.request, config, folder, context.scratch, context.progress)
        yield _Form(healed, config.steps)
    except NoImprovement:
        if not structure.whole:
            yield _Form(folder, note=f"{config.steps} steps of healing made it no better")
    except RunFailed as error:
        yield Skipped(f"{structure}{healed_label(config.steps)}", nbytes, str(error))


def _plan_files(folder: Path, context: TrialContext) -> list[FilePlan]:
    """Every type, embedding type and size to the byte; of equal sizes the first."""
    exported, space = context.scratch / "headers.gguf", context.request.space
    write_gguf(folder, exported, model_name(folder), data=False)
    types = list(product(space.types, space.embedding_types))
    predictions = predict_sizes(exported, [make_recipe(*each) for each in types], with_imatrix=False)
    by_size: dict[int, FilePlan] = {}
    for (type, embedding_type), prediction in zip(types, predictions, strict=True):
        if prediction is not None:
            by_size.setdefault(prediction.bytes, (type, embedding_type, prediction.bytes))
    return list(by_size.values())


def _measure_files(
    structure: Structure,
    form: _Form,
    chosen: list[tuple[str, str | None]],
    reference: Reference,
    context: TrialContext,
) -> Iterator[Candidate]:
    exported = context.scratch / "bf16.gguf"
    write_gguf(form.folder, exported, model_name(form.folder))
    for type, embedding_type in chosen:
        yield _measure_file(structure, form, exported, type, embedding_type, reference, context)
    exported.unlink()


def _measure_file(
    structure: Structure,
    form: _Form,
    exported: Path,
    type: str,
    embedding_type: str | None,
    reference: Reference,
    context: TrialContext,
) -> Candidate:
    """Quantize to one type, measure it, and remove the file."""
    file = context.scratch / "trial.gguf"
    quantized = quantize(
        form.folder,
        type,
        file,
        force=True,
        threads=context.threads,
        embedding_type=embedding_type,
        exported=exported,
    )
    runtime = open_runtime(form.folder, file.resolve(), context.threads)
    try:
        divergence = measure_divergence(f"{structure}: {type}", runtime, reference, context.progress)
    finally:
        runtime.close()
        file.unlink()
    return _candidate(structure, form, type, embedding_type, quantized.bytes, divergence, context)


def _candidate(
    structure: Structure,
    form: _Form,
    type: str,
    embedding_type: str | None,
    nbytes: int,
    divergence: Divergence,
    context: TrialContext,
) -> Candidate:
    return Candidate(
        structure=structure,
        type=type,
        embedding_type=embedding_type,
        bytes=nbytes,
        bits_per_byte=divergence.bits_per_byte,
        bits_over_parent=ratio(divergence.sums.bits - context.parent_bits, context.document_bytes),
        kl=divergence.kl,
        lost_mass=divergence.lost_mass,
        heal_steps=form.heal_steps,
        note=form.note,
    )
