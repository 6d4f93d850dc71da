"""Healing: knowledge distillation of the parent into a slice on domain text; the best weights become a slice.

What is written is what was measured: the best weights on selection text, rounded as they are stored. Where
they are no better there than the slice as given, nothing is written. Verdict text then measures both.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import fingerprint, open_checkpoint
from slices.device import Device, choose_device
from slices.errors import BadConfig
from slices.files import atomic
from slices.heal import cached_teacher, memory_bound, run_state
from slices.heal.cached_teacher import CachedTeacher
from slices.heal.compiled import MIN_MINUTES, MIN_TOKENS, compile_layers
from slices.heal.curve import EvalPoint, evaluate
from slices.heal.fade import FadingLayers, check_fade, faded, fading_layers
from slices.heal.hidden_states import matching_layers
from slices.heal.loop import EarlyStop, StepCallback, backward, train
from slices.heal.memory_bound import MemoryBound
from slices.heal.qat import QuantizedWeights
from slices.heal.qat_plan import QatPlan, plan_qat
from slices.heal.record import healed_manifest, no_improvement
from slices.heal.request import HealRequest, resolve_compile, resolve_defaults
from slices.heal.run_state import RunState
from slices.heal.save import save_healed_slice, to_stored_dtypes
from slices.heal.settings import HealMethod
from slices.heal.student import Student, load_student, trained_weights
from slices.heal.teacher import ParentTeacher, Teacher, find_parent
from slices.heal.text import HealText, read_text
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


@dataclass(frozen=True)
class _Loaded:
    """Models, text and state of a run. `absent_rows`: vocabulary rows without a token, None for none.

    `qat`: the quantization that is trained for, None for none; the student is not quantized yet.
    """

    student: Student
    teacher: Teacher
    text: HealText
    run: RunState
    device: Device
    absent_rows: NDArray[np.bool_] | None
    qat: QatPlan | None


MemoryCallback = Callable[[MemoryBound], None]


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
    loaded = _load(request, on_memory_bound)
    run = loaded.run
    # its KL tells how far the cut is from its parent, which defaults follow; a quantized one's does not
    unquantized = evaluate(loaded.student, loaded.teacher, loaded.text) if loaded.qat else None
    loaded = _quantized(request, loaded)
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
    loaded = _quantized(trial, _load(trial, lambda bound: None))

    def step(label_only: float, fading: bool = False) -> None:
        config = replace(trial.config, label_only_fraction=label_only, fade=float(fading))
        with faded(loaded.student.fading, config, 0):
            backward(loaded.student, loaded.teacher, loaded.text, config, 0)
        loaded.student.model.zero_grad()

    key = _run_key(trial, loaded.text, find_parent(request.slice)[0], loaded.device)
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


def _load(request: HealRequest, on_memory_bound: MemoryCallback) -> _Loaded:
    """Check the memory, then load text, run state and models."""
    config = request.config
    device = choose_device(request.device, config.precision, request.threads)
    parent, token_map = find_parent(request.slice)
    if request.teacher and config.hidden_state_weight:
        raise BadConfig(
            f"--hidden-state-weight {config.hidden_state_weight}: expected 0, since a cached teacher holds "
            "no hidden states"
        )
    if config.fade:
        _check_fade(request, parent)
    bound = memory_bound.bound(
        request.slice, None if request.teacher else parent, config, device.compute.itemsize
    )
    on_memory_bound(bound)
    if device.name == "cpu":
        memory_bound.check(bound)
    text = read_text(request.slice, request.text, config)
    run = run_state.open_run(_run_key(request, text, parent, device))
    qat = plan_qat(request, run) if config.qat else None
    own_layers, parent_layers = _matching_layers(request.slice, parent)
    teacher: Teacher
    if request.teacher:
        teacher = CachedTeacher(request.teacher, text, device.name, config.lost_tokens)
    else:
        teacher = ParentTeacher(
            folder=parent,
            token_map=token_map,
            text=text,
            device=device,
            lost_tokens=config.lost_tokens,
            captured_layers=parent_layers,
        )
    absent_rows = token_map.ids < 0 if bool((token_map.ids < 0).any()) else None
    student = load_student(request.slice, config, device, absent_rows, own_layers)
    if config.fade and isinstance(teacher, ParentTeacher):
        student = replace(student, fading=_fading_layers(request.slice, parent, student, teacher))
    if config.compiled:
        for model in [student.model, *([teacher.model] if isinstance(teacher, ParentTeacher) else [])]:
            compile_layers(model, config.batch, config.row_tokens)
    return _Loaded(
        student=student, teacher=teacher, text=text, run=run, device=device, absent_rows=absent_rows, qat=qat
    )


def _quantized(request: HealRequest, loaded: _Loaded) -> _Loaded:
    """The same, its student to be trained for the quantization, if there is one."""
    if loaded.qat is None:
        return loaded
    config = request.config
    weights = QuantizedWeights(
        loaded.student, loaded.qat.plan, start=config.qat_start, interval=config.qat_interval
    )
    return replace(loaded, student=replace(loaded.student, qat=weights))


def _check_fade(request: HealRequest, parent: Path) -> None:
    """Refuse what cannot be faded, before anything is loaded."""
    anatomy, kept = read_anatomy(open_checkpoint(parent).config), manifest.read(request.slice).layers
    dropped = [layer.index for layer in anatomy.layers if layer.index not in kept]
    check_fade(anatomy, dropped, request.teacher is not None)


def _fading_layers(folder: Path, parent: Path, student: Student, teacher: ParentTeacher) -> FadingLayers:
    anatomy, kept = read_anatomy(open_checkpoint(parent).config), manifest.read(folder).layers
    return fading_layers(student.model, teacher.model, anatomy, kept)


def _matching_layers(folder: Path, parent: Path) -> tuple[list[int], list[int]]:
    """The layers of the hidden-state loss, by their indices in the slice and in its parent."""
    entry = manifest.read(folder)
    anatomy = read_anatomy(open_checkpoint(parent).config)
    windowed = entry.recipe.get("windowed_layers", [])
    return matching_layers(anatomy, entry.layers, bool(entry.recipe.get("portable")), windowed)


def _run_key(request: HealRequest, text: HealText, parent: Path, device: Device) -> dict[str, Any]:
    """Everything that determines the weights."""
    teacher = "parent" if request.teacher is None else cached_teacher.file_sha256(request.teacher)
    return {
        "slice": fingerprint(open_checkpoint(request.slice)),
        "parent": fingerprint(open_checkpoint(parent)),
        "text": text.sha256,
        "healing": request.config.to_json(),
        "teacher": teacher,
        "compute": str(device.compute),
        "device": device.name,
    }


def _stored_form(request: HealRequest, loaded: _Loaded) -> Student:
    """The slice as given, with every weight that can be trained: for weights as they will be stored."""
    full = replace(request.config, method=HealMethod.FULL)
    student = load_student(request.slice, full, loaded.device, loaded.absent_rows)
    if loaded.qat is None:
        return student
    return replace(student, qat=QuantizedWeights(student, loaded.qat.plan))


def _best_weights(request: HealRequest, loaded: _Loaded, stored: Student) -> tuple[dict[str, Any], EvalPoint]:
    """The best weights as they will be stored, put into `stored`, and their evaluation on selection text."""
    student, run = loaded.student, loaded.run
    if not run.best:
        return {}, run.curve[0]
    student.restore(run_state.read(run.best_file))
    weights = to_stored_dtypes(request.slice, trained_weights(student))
    stored.restore({**stored.trainable, **weights})
    return weights, _evaluate_as(run.point(run.best), stored, loaded, Part.SELECTION)


def _evaluate_as(point: EvalPoint, student: Student, loaded: _Loaded, part: Part) -> EvalPoint:
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
