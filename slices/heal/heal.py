"""Healing: knowledge distillation of the parent into a slice on domain text; the best weights become a slice.

What is written is what was measured: the best weights on selection text, rounded as they are stored. Where
they are no better there than the slice as given, nothing is written. Verdict text then measures both.
"""

from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from slices import manifest
from slices.device import choose_device
from slices.files import atomic
from slices.heal import cached_teacher, run_state
from slices.heal.compiled import MIN_MINUTES, MIN_TOKENS
from slices.heal.curve import EvalPoint, evaluate
from slices.heal.fade import faded
from slices.heal.load import LoadedRun, MemoryCallback, load_run, quantized, run_key
from slices.heal.loop import EarlyStop, StepCallback, backward, train
from slices.heal.qat import QuantizedWeights
from slices.heal.record import healed_manifest, no_improvement
from slices.heal.request import HealRequest, resolve_compile, resolve_defaults
from slices.heal.run_state import RunState
from slices.heal.save import save_healed_slice, to_stored_dtypes
from slices.heal.settings import HealMethod
from slices.heal.student import Student, load_student, trained_weights
from slices.heal.teacher import ParentTeacher, find_parent
from slices.heal.text import read_text
from slices.heal.time_budget import TIMED_STEPS, steps_within
from slices.progress import Progress, no_progress
from slices.text.corpus import Part


@dataclass(frozen=True)
class HealResult:
    """A finished run.

    `before` and `after` are measured on verdict text, `after` on the weights as stored; `selected` is the
    same on the selection text that chose them. `stopped` says why the run ended early.
    """

    path: Path
    before: EvalPoint
    after: EvalPoint
    selected: EvalPoint
    run: RunState
    stopped: EarlyStop | None
    manifest: manifest.Manifest


def heal(
    request: HealRequest,
    on_step: StepCallback = lambda progress: None,
    on_memory_bound: MemoryCallback = lambda bound: None,
) -> HealResult:
    """Heal a slice, or resume a killed run, and write the result.

    Args:
        on_step: called after every optimizer step.
        on_memory_bound: called with the memory bound before a model is loaded.

    Raises:
        Exists: the target is there and `force` is false.
        NoImprovement: no weights were better, so that nothing is written.
        RunFailed: the memory is too small.
        SliceError: the slice, its parent, the text or a file of the run is missing or damaged.
    """
    atomic.refuse_existing(request.target, request.force)
    request = resolve_compile(request, request.config.tokens >= MIN_TOKENS)
    loaded = load_run(request, on_memory_bound)
    run = loaded.run
    # its KL tells how far the cut is from its parent, which defaults follow; a quantized one's does not
    unquantized = evaluate(loaded.student, loaded.teacher, loaded.text) if loaded.qat else None
    loaded = quantized(request, loaded)
    if not run.curve:
        run.curve.append(evaluate(loaded.student, loaded.teacher, loaded.text))
    initial = run.curve[0]
    request = resolve_defaults(request, (unquantized or initial).kl.value)
    stopped = train(loaded.student, loaded.teacher, loaded.text, request.config, run, on_step)
    if loaded.student.qat is not None:
        loaded.student.qat.release()
    stored = _stored_form(request, loaded)
    before = evaluate(stored, loaded.teacher, loaded.text, part=Part.VERDICT)
    weights, selected = _best_weights(request, loaded, stored)
    if not selected.improves(initial, request.config.hard_label_weight or 0.0):
        run_state.delete(run)
        raise no_improvement(initial, selected, stopped, run.step)
    after = _evaluate_as(selected, stored, loaded, Part.VERDICT)
    healed = healed_manifest(request, loaded.device, loaded.text, run, (before, after, selected), stopped)
    if loaded.qat is not None:
        healed = loaded.qat.add_to(healed, request, unquantized)
    files = loaded.qat.files if loaded.qat else {}
    save_healed_slice(request.slice, request.target, weights, healed, request.force, files)
    run_state.delete(run)
    return HealResult(
        path=request.target,
        before=before,
        after=after,
        selected=selected,
        run=run,
        stopped=stopped,
        manifest=healed,
    )


def fit_steps(request: HealRequest, minutes: float) -> HealRequest:
    """The request with as many steps as fit into `minutes` on this machine, by timing a few.

    Raises:
        BadConfig: not even one fits.
        SliceError: as `heal`.
    """
    request = resolve_compile(request, minutes >= MIN_MINUTES)
    trial = replace(request, config=replace(request.config, steps=TIMED_STEPS + 1))
    trial = resolve_defaults(trial, inf)  # a large KL, whose defaults include the hidden-state loss
    loaded = quantized(trial, load_run(trial, lambda bound: None))

    def step(label_only: float, fading: bool = False) -> None:
        config = replace(trial.config, label_only_fraction=label_only, fade=float(fading))
        with faded(loaded.student.fading, config, 0):
            backward(loaded.student, loaded.teacher, loaded.text, config, 0)
        loaded.student.model.zero_grad()

    key = run_key(trial, loaded.text, find_parent(request.slice)[0], loaded.device)
    fraction = trial.config.label_only_fraction
    fade = trial.config.fade
    kinds = [(1 - fraction - fade, lambda: step(0.0)), (fraction, lambda: step(1.0))]
    kinds += [(fade, lambda: step(0.0, fading=True))] if fade else []
    qat = loaded.student.qat
    if qat is not None:
        config = request.config
        share = 1 - trial.config.qat_start / trial.config.steps
        kinds.append((share / config.qat_interval, qat.time_rounding))
    return replace(request, config=replace(request.config, steps=steps_within(minutes, key, kinds)))


def save_teacher(request: HealRequest, path: Path, k: int, progress: Progress = no_progress) -> int:
    """Cache the parent's top-k logits on the text of `request` in `path`; returns the file's bytes."""
    device = choose_device(request.device, request.config.precision, request.threads)
    text = read_text(request.slice, request.text, request.config)
    parent, token_map = find_parent(request.slice)
    lost_tokens = request.config.lost_tokens
    teacher = ParentTeacher(
        folder=parent, token_map=token_map, text=text, device=device, lost_tokens=lost_tokens
    )
    return cached_teacher.save_teacher(
        teacher, lost_tokens, text, len(token_map.ids), k, path, request.force, progress
    )


def _stored_form(request: HealRequest, loaded: LoadedRun) -> Student:
    """The slice as given, with every weight that can be trained: for weights as they will be stored."""
    full = replace(request.config, method=HealMethod.FULL)
    student = load_student(request.slice, full, loaded.device, loaded.absent_rows)
    if loaded.qat is None:
        return student
    return replace(student, qat=QuantizedWeights(student, loaded.qat.plan))


def _best_weights(
    request: HealRequest, loaded: LoadedRun, stored: Student
) -> tuple[dict[str, Any], EvalPoint]:
    """The best weights as they will be stored, put into `stored`, and their evaluation on selection text."""
    student, run = loaded.student, loaded.run
    if not run.best:
        return {}, run.curve[0]
    student.restore(run_state.read(run.best_file))
    weights = to_stored_dtypes(request.slice, trained_weights(student))
    stored.restore({**stored.trainable, **weights})
    return weights, _evaluate_as(run.point(run.best), stored, loaded, Part.SELECTION)


def _evaluate_as(point: EvalPoint, student: Student, loaded: LoadedRun, part: Part) -> EvalPoint:
    """An evaluation on a held-out part under the step and tokens of `point`."""
    return evaluate(
        student,
        loaded.teacher,
        loaded.text,
        step=point.step,
        tokens=point.tokens,
        train_loss=point.train_loss,
        part=part,
    )
