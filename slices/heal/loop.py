"""The steps of healing: read, compare, correct; measure now and then; keep what is needed to go on."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from slices.heal import state
from slices.heal.curve import Point, measured
from slices.heal.objective import distil, from_text
from slices.heal.settings import Healing
from slices.heal.state import Run
from slices.heal.student import Student
from slices.heal.teacher import Teacher, came_after
from slices.heal.text import Text

SAVE_SECONDS = 180.0
_CLIP = 1.0
_BETAS = (0.9, 0.95)
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class News:
    """What a run tells as it goes on: a step, and sometimes a new point."""

    step: int
    of: int
    loss: float
    tokens_per_second: float
    point: Point | None = None


@dataclass(frozen=True)
class Ending:
    """Why a run ended before its last step; `failed` where that was no choice."""

    reason: str
    failed: bool


Told = Callable[[News], None]


@dataclass
class _Pace:
    """Time and losses since something was last told, measured or saved."""

    begun: float
    first: int
    saved: float
    losses: list[float]


def train(
    student: Student, teacher: Teacher, text: Text, healing: Healing, run: Run, told: Told
) -> Ending | None:
    """Take the steps that are left of `run`, whose curve, best weights and files are kept up to date.

    Args:
        healing: with a rate and a share (`Healing.settled`).
        run: with the point of the slice as given.

    Returns:
        Why it ended before its last step, None if it did not.
    """
    optimizer = _optimizer(student, healing)
    if run.step:
        _restore(student, optimizer, state.read(run.state_file), run.step)
    pace = _Pace(monotonic(), run.step, monotonic(), [])
    before = run.seconds
    while run.step < healing.steps:
        loss = _step(student, teacher, text, healing, run.step, optimizer)
        if not math.isfinite(loss):
            return Ending(f"step {run.step + 1}: the loss is {loss}; a lower --rate may help", True)
        run.step += 1
        pace.losses.append(loss)
        run.seconds = before + monotonic() - pace.begun
        point = _measure(student, teacher, text, healing, run, pace)
        told(News(run.step, healing.steps, loss, _speed(healing, run, pace), point))
        _keep(student, optimizer, run, pace, point)
        if _stale(run) >= healing.patience:
            return Ending(f"no better on held-out text since step {run.best}", False)
    return None


def _step(
    student: Student, teacher: Teacher, text: Text, healing: Healing, step: int, optimizer: Any
) -> float:
    """One correction; returns its loss. Weights stay as they were where the loss is not finite."""
    import torch

    total = backward(student, teacher, text, healing, step)
    norm = torch.nn.utils.clip_grad_norm_(list(student.trained.values()), _CLIP)
    finite = math.isfinite(total) and bool(torch.isfinite(norm))
    if finite:
        for group in optimizer.param_groups:
            group["lr"] = healing.rate_at(step)
        optimizer.step()
    optimizer.zero_grad()
    return total if finite else math.nan


def backward(student: Student, teacher: Teacher, text: Text, healing: Healing, step: int) -> float:
    """Add a step's gradients to the trained parameters' and return its mean loss, in nats a token.

    What draws hidden states together is learned from as well, but is no part of the loss that is told.
    """
    import torch

    numbers, hard = text.numbers(step, healing.rows), healing.hard or 0.0
    total = 0.0
    for start in range(0, len(numbers), healing.batch):
        part = numbers[start : start + healing.batch]
        tokens = torch.tensor(text.rows[part], dtype=torch.int64, device=student.device.name)
        share = len(part) / len(numbers)
        if healing.is_alone(step):
            loss = from_text(student.hidden(tokens), student.head, came_after(tokens))
            (loss * share).backward()
        else:
            states, target = student.states(tokens), teacher.rows(part)
            loss, _ = distil(states.last, student.head, target, came_after(tokens), hard)
            pull = healing.states * target.apart(states) if healing.states else 0.0
            ((loss + pull) * share).backward()
        total += float(loss.detach()) * share
    return total


def _measure(
    student: Student, teacher: Teacher, text: Text, healing: Healing, run: Run, pace: _Pace
) -> Point | None:
    if run.step % healing.every and run.step != healing.steps:
        return None
    tokens = run.step * healing.rows * healing.context
    trained = sum(pace.losses) / len(pace.losses)
    point = measured(student, teacher, text, run.step, tokens, trained)
    pace.losses.clear()
    hard = healing.hard or 0.0
    if point.loss(hard) < run.point(run.best).loss(hard):
        run.best = point.step
    run.curve.append(point)
    return point


def _keep(student: Student, optimizer: Any, run: Run, pace: _Pace, point: Point | None) -> None:
    """Save at every point, and where the last time is long ago."""
    if point is None and monotonic() - pace.saved < SAVE_SECONDS:
        return
    best = student.values() if point is not None and run.best == point.step else None
    state.save(run, _state(student, optimizer), best)
    pace.saved = monotonic()


def _stale(run: Run) -> int:
    """How many points came since the best one."""
    return sum(point.step > run.best for point in run.curve)


def _speed(healing: Healing, run: Run, pace: _Pace) -> float:
    tokens = (run.step - pace.first) * healing.rows * healing.context
    return tokens / max(monotonic() - pace.begun, 1e-9)


def _optimizer(student: Student, healing: Healing) -> Any:
    from torch.optim import AdamW

    parameters = list(student.trained.values())
    return AdamW(parameters, lr=healing.rate_at(0), betas=_BETAS, weight_decay=0.0, fused=True)


def _state(student: Student, optimizer: Any) -> dict[str, Any]:
    found = {f"weight.{name}": value for name, value in student.values().items()}
    for name, parameter in student.trained.items():
        moments: Mapping[str, Any] = optimizer.state[parameter]
        found |= {f"{key}.{name}": moments[key].detach().cpu() for key in _MOMENTS}
    return found


def _restore(student: Student, optimizer: Any, found: Mapping[str, Any], step: int) -> None:
    import torch

    student.restore({name: found[f"weight.{name}"] for name in student.trained})
    for name, parameter in student.trained.items():
        moments = {key: found[f"{key}.{name}"].to(parameter.device) for key in _MOMENTS}
        optimizer.state[parameter] = {"step": torch.tensor(float(step), device=parameter.device), **moments}
