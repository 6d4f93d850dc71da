"""The ladder: quantize a slice from the smallest type upwards, measure each, keep the one that is wanted.

Every trial is held against the bf16 slice on the domain's selection text. A trial is a temporary file; only
the chosen one gets a name, and slice.json tells of all. What is wanted is said in
`slices.measure.quant_trials`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from slices import manifest
from slices.checkpoint import weight_files
from slices.errors import Exists, NotFound
from slices.export import write_gguf
from slices.files.atomic import refuse_existing, staged
from slices.files.disk_space import check_free_space
from slices.files.temp_files import temp_dir
from slices.measure.divergence import Divergence, measure_divergence
from slices.measure.heldout import Heldout
from slices.measure.ladder_record import record_ladder
from slices.measure.quant_trials import Goal, QuantTrial, choose_trial, goal_not_met
from slices.measure.reference import Reference, compute_reference
from slices.progress import Progress, no_progress
from slices.quant.imatrix_file import Imatrix
from slices.quant.quantize import Quantized, quantize, record_gguf
from slices.quant.recipe import make_recipe
from slices.quant.size import model_name, predict_sizes
from slices.quant.types import TYPES, find_type
from slices.runtimes.open import open_runtime

_TORCH_BELOW = 4_000_000_000  # bytes of weights; above, the reference is the BF16 GGUF: mapped, not loaded


@dataclass(frozen=True)
class LadderOptions:
    """How every trial is made, as for `slices.quant.quantize.quantize`; `threads` also for running it."""

    imatrix: Imatrix | None = None
    embedding_type: str | None = None
    threads: int | None = None

    def embedding_type_of(self, type: str) -> str | None:
        """The type of the embeddings, which BF16 does not take."""
        return None if type == "BF16" else self.embedding_type


@dataclass(frozen=True)
class Ladder:
    """What was measured, smallest first, and what was kept.

    `text` chose the type; `reported` measures it on other text, None where there is none. `sizes`: predicted
    bytes of every type there is, those above the budget and those that were not come to included.
    """

    goal: Goal
    domain: str
    text: Heldout
    sizes: Mapping[str, int]
    trials: tuple[QuantTrial, ...]
    chosen: QuantTrial
    kept: Quantized
    reported: Divergence | None = None


@dataclass(frozen=True)
class _LadderRun:
    folder: Path
    goal: Goal
    options: LadderOptions
    scratch: Path
    progress: Progress

    @property
    def exported(self) -> Path:
        """The slice in bf16, which every trial is made from."""
        return self.scratch / "bf16.gguf"


def run_ladder(
    folder: Path,
    text: Heldout,
    domain: str,
    goal: Goal,
    types: Sequence[str] = tuple(TYPES),
    options: LadderOptions | None = None,
    out: Path | None = None,
    force: bool = False,
    progress: Progress = no_progress,
    verdict: Heldout | None = None,
) -> Ladder:
    """Quantize the slice in `folder` to the type that `goal` asks for, found by measuring on `text`.

    Types that need an importance matrix are left out where there is none. With a greatest KL the climb ends
    at the first trial that passes; with a budget alone it measures all that fit.

    Args:
        out: where to; by default `<folder>/<name>-<TYPE>.gguf`.
        force: replace what is there. By default only the very same file may be.
        verdict: other text, on which the chosen file is measured for what is reported.

    Raises:
        GoalNotMet: no type met the goal; nothing is written. It holds the trials measured.
        NotFound: there is no slice, or no `out` for a plain checkpoint.
        Exists: the output is there, is another file, and `force` is false.
        SliceError: as `quantize`, `compute_reference` and `measure_divergence`.
    """
    if out is None and not (folder / manifest.FILE).is_file():
        raise NotFound(f"{folder} is no finished slice (no {manifest.FILE}); say with -o where the GGUF goes")
    if out is not None:
        refuse_existing(out, force)
    with temp_dir(out.parent if out else folder) as scratch:
        on = _LadderRun(
            folder=folder, goal=goal, options=options or LadderOptions(), scratch=scratch, progress=progress
        )
        sizes = predict_ladder_sizes(folder, on.exported, types, on.options)
        fitting = [type for type in sizes if goal.fits(sizes[type])]
        if not fitting:
            raise goal_not_met((), goal, sizes)
        _export(on, max(sizes[type] for type in fitting))
        trials, made = _measured(on, fitting, text)
        chosen = choose_trial(trials, goal)
        if chosen is None or made is None:
            raise goal_not_met(trials, goal, sizes)
        reported = None if verdict is None else _measure(on, made, _reference(on, verdict))
        done = _keep(folder, made, out, force)
    record_ladder(done.path, domain, goal, trials, reported or chosen.measured)
    return Ladder(
        goal=goal,
        domain=domain,
        text=text,
        sizes=sizes,
        trials=tuple(trials),
        chosen=chosen,
        kept=done,
        reported=reported,
    )


def predict_ladder_sizes(
    folder: Path, exported: Path, types: Sequence[str], options: LadderOptions
) -> dict[str, int]:
    """Predicted bytes of every type that can be made, the smallest first.

    Writes the headers of the slice's bf16 GGUF to `exported`.
    """
    write_gguf(folder, exported, model_name(folder), data=False)
    weighted = options.imatrix is not None
    there = [type for type in types if weighted or find_type(type).imatrix != "needed"]
    recipes = [make_recipe(type, options.embedding_type_of(type)) for type in there]
    foretold = predict_sizes(exported, recipes, weighted)
    sizes = {type: each.bytes for type, each in zip(there, foretold, strict=True) if each is not None}
    return dict(sorted(sizes.items(), key=lambda item: item[1]))


def _export(on: _LadderRun, largest: int) -> None:
    """The slice in bf16, where there is room for it, for the best trial so far and for the next."""
    size = on.exported.stat().st_size
    what = f"{size:,} for the bf16 export and {largest:,} for each of two trials"
    check_free_space(on.exported, size + 2 * largest, what)
    write_gguf(on.folder, on.exported, model_name(on.folder))


def _measured(
    on: _LadderRun, types: Sequence[str], text: Heldout
) -> tuple[list[QuantTrial], Quantized | None]:
    """Rungs up to the one that is chosen, or all; and its file, the only one that is left."""
    trials: list[QuantTrial] = []
    best: Quantized | None = None
    reference = _reference(on, text)
    for type in types:
        trial, made = _run_trial(on, type, reference)
        trials.append(trial)
        if choose_trial(trials, on.goal) is not trial:
            made.path.unlink()
            continue
        if best is not None:
            best.path.unlink()
        best = made
        if on.goal.max_kl is not None:
            break
    return trials, best


def _reference(on: _LadderRun, text: Heldout) -> Reference:
    """The bf16 slice's distributions; the slice itself leaves memory first."""
    big = sum(file.stat().st_size for file in weight_files(on.folder)) >= _TORCH_BELOW
    runtime = open_runtime(on.folder, on.exported.resolve() if big else None, on.options.threads)
    try:
        return compute_reference("bf16", runtime, text, progress=on.progress)
    finally:
        runtime.close()


def _run_trial(on: _LadderRun, type: str, reference: Reference) -> tuple[QuantTrial, Quantized]:
    started = perf_counter()

    made = quantize(
        on.folder,
        type,
        on.scratch / f"{type}.gguf",
        progress=on.progress,
        threads=on.options.threads,
        imatrix=on.options.imatrix,
        embedding_type=on.options.embedding_type_of(type),
        exported=on.exported,
    )
    found = _measure(on, made, reference)
    passes = on.goal.passes(found.kl)
    return QuantTrial(
        type=type,
        bytes=made.bytes,
        bits_per_weight=made.bits_per_weight,
        passes=passes,
        measured=found,
        seconds=perf_counter() - started,
    ), made


def _measure(on: _LadderRun, made: Quantized, reference: Reference) -> Divergence:
    runtime = open_runtime(on.folder, made.path.resolve(), on.options.threads)
    try:
        return measure_divergence(made.type, runtime, reference, on.progress)
    finally:
        runtime.close()


def _keep(folder: Path, made: Quantized, out: Path | None, force: bool) -> Quantized:
    """Give the chosen file its name and record it; the same file, made before, is left as it is."""
    target = out or folder / f"{model_name(folder)}-{made.type}.gguf"
    done = replace(made, path=target)
    same = target.is_file() and _sha256(target) == made.sha256
    if same and _is_recorded(folder, target.name):
        return done
    if target.exists() and not (force or same):
        raise Exists(
            f"{made.type} was chosen, but {target} is there and is another file; choose another output with "
            "-o, or pass --force to replace it"
        )
    with staged(target, force or same) as partial:
        made.path.rename(partial)
    record_gguf(folder, done)
    return done


def _is_recorded(folder: Path, file: str) -> bool:
    known = manifest.read(folder).quantized if (folder / manifest.FILE).is_file() else []
    return any(each.file == file for each in known)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
