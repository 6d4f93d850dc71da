"""What a healing run loads: text, run state, models, and the quantization that it trains for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import fingerprint, open_checkpoint
from slices.device import Device, choose_device
from slices.errors import BadConfig
from slices.heal import cached_teacher, memory_bound, run_state
from slices.heal.cached_teacher import CachedTeacher
from slices.heal.compiled import compile_layers
from slices.heal.fade import FadingLayers, check_fade, fading_layers
from slices.heal.hidden_states import matching_layers
from slices.heal.memory_bound import MemoryBound
from slices.heal.qat import QuantizedWeights
from slices.heal.qat_plan import QatPlan, plan_qat
from slices.heal.request import HealRequest
from slices.heal.run_state import RunState
from slices.heal.student import Student, load_student
from slices.heal.teacher import ParentTeacher, Teacher, find_parent
from slices.heal.text import HealText, read_text
from slices.measure.token_map import TokenMap

MemoryCallback = Callable[[MemoryBound], None]


@dataclass(frozen=True)
class LoadedRun:
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


def load_run(request: HealRequest, on_memory_bound: MemoryCallback) -> LoadedRun:
    """Check the request and the memory, then load text, run state and models.

    Raises:
        BadConfig: the settings do not go together, or not with this slice.
        RunFailed: the memory is too small.
        SliceError: the slice, its parent or the text is missing or damaged.
    """
    config = request.config
    device = choose_device(request.device, config.precision, request.threads)
    parent, token_map = find_parent(request.slice)
    _check(request, parent, device, on_memory_bound)
    text = read_text(request.slice, request.text, config)
    run = run_state.open_run(run_key(request, text, parent, device))
    qat = plan_qat(request, run) if config.qat else None
    own_layers, parent_layers = _matching_layers(request.slice, parent)
    teacher = _load_teacher(request, parent, token_map, text, device, parent_layers)
    absent_rows = token_map.ids < 0 if bool((token_map.ids < 0).any()) else None
    student = load_student(request.slice, config, device, absent_rows, own_layers)
    if config.fade and isinstance(teacher, ParentTeacher):
        student = replace(student, fading=_fading_layers(request.slice, parent, student, teacher))
    if config.compiled:
        for model in [student.model, *([teacher.model] if isinstance(teacher, ParentTeacher) else [])]:
            compile_layers(model, config.batch, config.row_tokens)
    return LoadedRun(
        student=student, teacher=teacher, text=text, run=run, device=device, absent_rows=absent_rows, qat=qat
    )


def _check(request: HealRequest, parent: Path, device: Device, on_memory_bound: MemoryCallback) -> None:
    config = request.config
    if request.teacher and config.hidden_state_weight:
        raise BadConfig(
            f"--hidden-state-weight {config.hidden_state_weight}: expected 0, since a cached teacher holds "
            "no hidden states"
        )
    if config.fade:
        _check_fade(request, parent)
    teacher = None if request.teacher else parent
    bound = memory_bound.bound(request.slice, teacher, config, device.compute.itemsize)
    on_memory_bound(bound)
    if device.name == "cpu":
        memory_bound.check(bound)


def _load_teacher(
    request: HealRequest,
    parent: Path,
    token_map: TokenMap,
    text: HealText,
    device: Device,
    captured_layers: list[int],
) -> Teacher:
    lost_tokens = request.config.lost_tokens
    if request.teacher:
        return CachedTeacher(request.teacher, text, device.name, lost_tokens)
    return ParentTeacher(
        folder=parent,
        token_map=token_map,
        text=text,
        device=device,
        lost_tokens=lost_tokens,
        captured_layers=captured_layers,
    )


def quantized(request: HealRequest, loaded: LoadedRun) -> LoadedRun:
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


def run_key(request: HealRequest, text: HealText, parent: Path, device: Device) -> dict[str, Any]:
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
