"""The story of healing: text, teacher, student, steps, the best weights as a slice of their own.

What is shipped is what was measured: the best weights on held-out text, rounded as they are stored. Where
they are no better than the slice as given, nothing is written.
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
from slices.cut.manifest_entry import versions
from slices.device import Device, choose_device
from slices.errors import BadConfig, RunFailed
from slices.files import atomic
from slices.heal import memory_bound, saved, state
from slices.heal.compiled import WORTH, WORTH_MINUTES, can_compile, compile_layers
from slices.heal.curve import Point, measured
from slices.heal.loop import Ending, Told, backward, train
from slices.heal.save import as_stored, ship
from slices.heal.settings import Healing
from slices.heal.state import Run
from slices.heal.states import same_layers
from slices.heal.student import Student, learned_weights, load_student
from slices.heal.teacher import Parent, Teacher, find_parent
from slices.heal.text import Text, read_text
from slices.heal.time_budget import TRIED, steps_within
from slices.text.corpus import Corpus


@dataclass(frozen=True)
class Order:
    """What was asked of `mom heal`, beside how.

    Attributes:
        target: the folder of the healed slice, whose name is that of the folder.
        teacher: a file of `save_teacher`; None runs the parent.
    """

    slice: Path
    target: Path
    text: Corpus
    healing: Healing
    teacher: Path | None = None
    device: str = "auto"
    threads: int | None = None
    force: bool = False


@dataclass(frozen=True)
class Healed:
    """What came of a run. `after` is of the weights as they are stored; `stopped` says why it ended early."""

    path: Path
    before: Point
    after: Point
    run: Run
    stopped: Ending | None
    manifest: manifest.Manifest


@dataclass(frozen=True)
class _Scene:
    """Everything that a run needs, loaded."""

    student: Student
    teacher: Teacher
    text: Text
    run: Run
    device: Device
    absent: NDArray[np.bool_] | None


Bounded = Callable[[memory_bound.Memory], None]


def heal(order: Order, told: Told = lambda news: None, bounded: Bounded = lambda needed: None) -> Healed:
    """Heal a slice, or go on with a run that was killed, and write the result.

    Args:
        told: called after every step.
        bounded: told the bound on memory before anything big is loaded.

    Raises:
        Exists: the target is there and `force` is false.
        RunFailed: the memory is too small, or healing made nothing better, so that nothing is written.
        SliceError: the slice, its parent, the text or a file of the run is missing or damaged.
    """
    atomic.refuse_existing(order.target, order.force)
    order = _compiled(order, order.healing.tokens >= WORTH)
    scene = _set(order, bounded)
    run = scene.run
    if not run.curve:
        run.curve.append(measured(scene.student, scene.teacher, scene.text))
    before = run.curve[0]
    order = _settled(order, before.kl.value)
    stopped = train(scene.student, scene.teacher, scene.text, order.healing, run, told)
    weights, after = _best(order, scene)
    if not after.improves(before, order.healing.hard or 0.0):
        state.discard(run)
        raise RunFailed(_no_better(before, after, stopped, run))
    made = _recorded(order, scene, after, stopped)
    ship(order.slice, order.target, weights, made, order.force)
    state.discard(run)
    return Healed(order.target, before, after, run, stopped, made)


def within(order: Order, minutes: float) -> Order:
    """The order with as many steps as fit into `minutes` on this machine, by trying a few.

    Raises:
        BadConfig: not even one fits.
        SliceError: as `heal`.
    """
    order = _compiled(order, minutes >= WORTH_MINUTES)
    trial = _settled(replace(order, healing=replace(order.healing, steps=TRIED + 1)), inf)  # as if to mend
    scene = _set(trial, lambda needed: None)

    def step(alone: float) -> None:
        backward(scene.student, scene.teacher, scene.text, replace(trial.healing, alone=alone), 0)
        scene.student.model.zero_grad()

    parts = _identity(trial, scene.text, find_parent(order.slice)[0], scene.device)
    share = trial.healing.alone
    found = steps_within(minutes, parts, [(1 - share, lambda: step(0.0)), (share, lambda: step(1.0))])
    return replace(order, healing=replace(order.healing, steps=found))


def save_teacher(order: Order, path: Path, k: int, told: Callable[[int, int], None]) -> int:
    """Run the parent over the text of `order` and keep what it expects in `path`; returns its bytes."""
    device = choose_device(order.device, order.healing.precision, order.threads)
    text = read_text(order.slice, order.text, order.healing)
    parent, ids = find_parent(order.slice)
    return saved.save_teacher(Parent(parent, ids, text, device), text, len(ids), k, path, order.force, told)


def _set(order: Order, bounded: Bounded) -> _Scene:
    device = choose_device(order.device, order.healing.precision, order.threads)
    parent, ids = find_parent(order.slice)
    if order.teacher and order.healing.states:
        raise BadConfig(
            f"--states {order.healing.states}: a saved teacher has no hidden states to be drawn to"
        )
    needed = memory_bound.bound(
        order.slice, None if order.teacher else parent, order.healing, device.compute.itemsize
    )
    bounded(needed)
    if device.name == "cpu":
        memory_bound.check(needed)
    text = read_text(order.slice, order.text, order.healing)
    run = state.open_run(_identity(order, text, parent, device))
    own, theirs = _watched(order.slice, parent)
    teacher: Teacher
    if order.teacher:
        teacher = saved.Saved(order.teacher, text, device.name)
    else:
        teacher = Parent(parent, ids, text, device, theirs)
    absent = ids < 0 if bool((ids < 0).any()) else None
    student = load_student(order.slice, order.healing, device, absent, own)
    if order.healing.compiled:
        models = [student.model, *([teacher.model] if isinstance(teacher, Parent) else [])]
        for model in models:
            compile_layers(model, order.healing.batch, order.healing.context)
    return _Scene(student, teacher, text, run, device, absent)


def _compiled(order: Order, worth: bool) -> Order:
    """The order with that settled: compiled where it says so, or says nothing and it is worth it."""
    if order.healing.compiled is not None:
        return order
    name = choose_device(order.device, order.healing.precision, order.threads).name
    return replace(order, healing=replace(order.healing, compiled=worth and can_compile(name)))


def _settled(order: Order, kl: float) -> Order:
    healing = order.healing.settled(kl)
    return replace(order, healing=replace(healing, states=0.0) if order.teacher else healing)


def _watched(folder: Path, parent: Path) -> tuple[list[int], list[int]]:
    """The layers whose inputs are held against each other, as the slice and as its parent count them."""
    made = manifest.read(folder)
    anatomy = read_anatomy(open_checkpoint(parent).config)
    return same_layers(anatomy, made.layers, bool(made.recipe.get("portable")))


def _identity(order: Order, text: Text, parent: Path, device: Device) -> dict[str, Any]:
    """Everything that decides the weights."""
    taught = "parent" if order.teacher is None else saved.digest(order.teacher)
    return {
        "slice": fingerprint(open_checkpoint(order.slice)),
        "parent": fingerprint(open_checkpoint(parent)),
        "text": text.sha256,
        "healing": order.healing.to_json(),
        "teacher": taught,
        "compute": str(device.compute),
        "device": device.name,
    }


def _best(order: Order, scene: _Scene) -> tuple[dict[str, Any], Point]:
    """The best weights as they will be stored, and what they are worth so."""
    student, run = scene.student, scene.run
    if not run.best:
        return {}, run.curve[0]
    student.restore(state.read(run.best_file))
    weights = as_stored(order.slice, learned_weights(student))
    shipped = load_student(order.slice, replace(order.healing, method="full"), scene.device, scene.absent)
    shipped.restore({**shipped.trained, **weights})
    best = run.point(run.best)
    return weights, measured(shipped, scene.teacher, scene.text, best.step, best.tokens, best.trained)


def _no_better(before: Point, after: Point, stopped: Ending | None, run: Run) -> str:
    """Why nothing is written, in figures."""
    found = f"{stopped.reason}. " if stopped else ""
    return (
        f"{found}Healing made no better slice on held-out text, so nothing is written: KL "
        f"{before.kl.value:.4f} before and {after.kl.value:.4f} at best (step {after.step} of {run.step}), "
        f"bits per byte {before.bits_per_byte.value:.4f} and {after.bits_per_byte.value:.4f}. A lower "
        "--rate, another --hard or more text may help"
    )


def _recorded(order: Order, scene: _Scene, after: Point, stopped: Ending | None) -> manifest.Manifest:
    """The healed slice's manifest: the slice's own, with what healing did; nothing of the old weights."""
    given, run, text = manifest.read(order.slice), scene.run, scene.text
    told = {
        "slice": given.name,
        "settings": order.healing.to_json(),
        "teacher": "saved" if order.teacher else "parent",
        "device": scene.device.name,
        "threads": scene.device.threads,
        "compute": str(scene.device.compute).removeprefix("torch."),
        "text": {"source": order.text.source, "sha256": order.text.sha256, "tokens_sha256": text.sha256},
        "heldout": {"sha256": text.heldout.sha256, "documents": text.heldout.documents},
        "steps": run.step,
        "tokens": run.curve[-1].tokens,
        "seconds": round(run.seconds, 1),
        "stopped": stopped.reason if stopped else None,
        "before": run.curve[0].to_json(),
        "after": after.to_json(),
        "curve": [point.to_json() for point in run.curve],
    }
    return given.model_copy(
        update={
            "name": order.target.name,
            "created": manifest.now(),
            "quantized": [],
            "measurements": [],
            "verdicts": [],
            "versions": versions(),
            "healing": told,
        }
    )
