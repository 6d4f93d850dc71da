"""The training loop: optimizer steps, evaluation, early stopping, and checkpoints to resume from."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from slices.heal import run_state
from slices.heal.curve import EvalPoint, evaluate
from slices.heal.fade import faded
from slices.heal.objective import distillation_loss, label_loss, next_token_ids
from slices.heal.run_state import RunState
from slices.heal.settings import HealConfig
from slices.heal.student import Student
from slices.heal.teacher import Teacher
from slices.heal.text import HealText

CHECKPOINT_SECONDS = 180.0
_MAX_GRAD_NORM = 1.0
_BETAS = (0.9, 0.95)
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class TrainingProgress:
    """One optimizer step, and the evaluation that followed it, if one did."""

    step: int
    total_steps: int
    loss: float
    tokens_per_second: float
    point: EvalPoint | None = None


@dataclass(frozen=True)
class EarlyStop:
    """Why a run ended before its last step; `failed` on divergence, not on exhausted patience."""

    reason: str
    failed: bool


StepCallback = Callable[[TrainingProgress], None]


@dataclass
class _RunningStats:
    """Times, and the losses since the last evaluation."""

    first_step: int
    started: float = field(default_factory=monotonic)
    checkpointed: float = field(default_factory=monotonic)
    losses: list[float] = field(default_factory=list)

    def tokens_per_second(self, config: HealConfig, step: int) -> float:
        """Training throughput since the start of this process."""
        tokens = (step - self.first_step) * config.rows_per_step * config.row_tokens
        return tokens / max(monotonic() - self.started, 1e-9)


def train(
    student: Student,
    teacher: Teacher,
    text: HealText,
    config: HealConfig,
    run: RunState,
    on_step: StepCallback,
) -> EarlyStop | None:
    """Train from `run.step` to the end; the curve, best weights and files of `run` are kept up to date.

    Args:
        config: with a learning rate and weights (`HealConfig.with_defaults`).
        run: with the evaluation of the slice as given.
        on_step: called after every optimizer step.

    Returns:
        Why training stopped early, None if it did not.
    """
    optimizer = _optimizer(student, config)
    if run.step:
        _load_checkpoint(student, optimizer, run_state.read(run.state_file), run.step)
    stats, seconds_before = _RunningStats(run.step), run.seconds
    while run.step < config.steps:
        if student.qat is not None:
            student.qat.begin_step(run.step)
        loss = _train_step(student, teacher, text, config, run.step, optimizer)
        if not math.isfinite(loss):
            return EarlyStop(f"step {run.step + 1}: the loss is {loss}; a lower --lr may help", failed=True)
        run.step += 1
        if student.qat is not None:
            student.qat.end_step(run.step)
        stats.losses.append(loss)
        run.seconds = seconds_before + monotonic() - stats.started
        point = _evaluate_if_due(student, teacher, text, config, run, stats)
        on_step(
            TrainingProgress(
                step=run.step,
                total_steps=config.steps,
                loss=loss,
                tokens_per_second=stats.tokens_per_second(config, run.step),
                point=point,
            )
        )
        _checkpoint_if_due(student, optimizer, run, stats, point)
        if _evaluations_since_best(run, config.fade_steps) >= config.patience:
            return EarlyStop(f"no improvement on held-out text since step {run.best}", failed=False)
    return None


def _train_step(
    student: Student, teacher: Teacher, text: HealText, config: HealConfig, step: int, optimizer: Any
) -> float:
    """One optimizer step; returns its loss. Where that is not finite the weights stay as they were."""
    import torch

    with faded(student.fading, config, step):
        loss = backward(student, teacher, text, config, step)
    norm = torch.nn.utils.clip_grad_norm_(list(student.trainable.values()), _MAX_GRAD_NORM)
    finite = math.isfinite(loss) and bool(torch.isfinite(norm))
    if finite:
        for group in optimizer.param_groups:
            group["lr"] = config.lr_at(step)
        optimizer.step()
    optimizer.zero_grad()
    return loss if finite else math.nan


def backward(student: Student, teacher: Teacher, text: HealText, config: HealConfig, step: int) -> float:
    """Accumulate a step's gradients; returns its mean loss in nats per token.

    The hidden-state loss adds gradients but is not part of the returned loss.
    """
    import torch

    indices, total = text.row_indices(step, config.rows_per_step), 0.0
    for start in range(0, len(indices), config.batch):
        batch = indices[start : start + config.batch]
        tokens = torch.tensor(text.rows[batch], dtype=torch.int64, device=student.device.name)
        fraction = len(batch) / len(indices)
        if config.is_label_only(step):
            loss = label_loss(student.last_hidden_state(tokens), student.head, next_token_ids(tokens))
            (loss * fraction).backward()
        else:
            loss, hidden_loss = _distill(student, teacher, batch, tokens, config)
            ((loss + hidden_loss) * fraction).backward()
        total += float(loss.detach()) * fraction
    return total


def _distill(
    student: Student, teacher: Teacher, batch: Any, tokens: Any, config: HealConfig
) -> tuple[Any, Any]:
    """The distillation loss and the weighted hidden-state loss of some rows, scalar tensors."""
    states, output = student.hidden_states(tokens), teacher.rows(batch)
    hard = config.hard_label_weight or 0.0
    loss, _ = distillation_loss(states.last, student.head, output, next_token_ids(tokens), hard)
    weight = config.hidden_state_weight
    return loss, weight * output.hidden_state_loss(states) if weight else 0.0


def _evaluate_if_due(
    student: Student,
    teacher: Teacher,
    text: HealText,
    config: HealConfig,
    run: RunState,
    stats: _RunningStats,
) -> EvalPoint | None:
    if run.step % config.eval_every and run.step != config.steps:
        return None
    tokens = run.step * config.rows_per_step * config.row_tokens
    train_loss = sum(stats.losses) / len(stats.losses)
    point = evaluate(student, teacher, text, run.step, tokens, train_loss)
    stats.losses.clear()
    if point.improves(run.point(run.best), config.hard_label_weight or 0.0):
        run.best = point.step
    run.curve.append(point)
    return point


def _checkpoint_if_due(
    student: Student, optimizer: Any, run: RunState, stats: _RunningStats, point: EvalPoint | None
) -> None:
    """Write a checkpoint after every evaluation, and every `CHECKPOINT_SECONDS`.

    Between two roundings of quantization-aware healing the weights are not there: it waits for the next.
    """
    if point is None and monotonic() - stats.checkpointed < CHECKPOINT_SECONDS:
        return
    if student.qat is not None and student.qat.folded:
        return
    best = student.snapshot() if point is not None and run.best == point.step else None
    run_state.save(run, _checkpoint(student, optimizer), best)
    stats.checkpointed = monotonic()


def _evaluations_since_best(run: RunState, fade_steps: int) -> int:
    """How many there were; none counts while dropped layers contribute to training."""
    return sum(point.step > max(run.best, fade_steps) for point in run.curve)


def _optimizer(student: Student, config: HealConfig) -> Any:
    from torch.optim import AdamW

    parameters = list(student.trainable.values())
    return AdamW(parameters, lr=config.lr_at(0), betas=_BETAS, weight_decay=0.0, fused=True)


def _checkpoint(student: Student, optimizer: Any) -> dict[str, Any]:
    """Trainable parameters and AdamW's moments, float32, by name."""
    tensors = {f"weight.{name}": value for name, value in student.snapshot().items()}
    for name, parameter in student.trainable.items():
        moments: Mapping[str, Any] = optimizer.state[parameter]
        tensors |= {f"{key}.{name}": moments[key].detach().cpu() for key in _MOMENTS}
    return tensors


def _load_checkpoint(student: Student, optimizer: Any, tensors: Mapping[str, Any], step: int) -> None:
    import torch

    student.restore({name: tensors[f"weight.{name}"] for name in student.trainable})
    for name, parameter in student.trainable.items():
        moments = {key: tensors[f"{key}.{name}"].to(parameter.device) for key in _MOMENTS}
        optimizer.state[parameter] = {"step": torch.tensor(float(step), device=parameter.device), **moments}
