"""The loss of healing: knowledge distillation from the parent, mixed with cross-entropy to the text.

    (1 - hard_label_weight) KL(teacher || student) + hard_label_weight * (-log p(target)), in nats per token

Output layer, softmax and their gradient are one function over chunks of positions, so that the logits of a
whole batch are never in memory. Word-level distillation: Hinton et al., 2015, arXiv 1503.02531; for pruned
language models: Minitron, Muralidharan et al., 2024, arXiv 2407.14679.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from slices.heal.hidden_states import HiddenStates

CHUNK = 256  # positions per chunk
IGNORE_INDEX = -1  # target id of positions without a next token


class TeacherOutput(Protocol):
    """The teacher's next-token distributions and hidden states at the positions of a batch."""

    def logprobs(self, start: int, stop: int, student_logprobs: Any) -> Any:
        """Log probabilities over the slice's vocabulary, float32 (stop - start, vocabulary).

        Args:
            student_logprobs: of the same shape, for teachers that know only the top-k tokens; not modified.
        """
        ...

    def hidden_state_loss(self, states: HiddenStates) -> Any:
        """The student's hidden-state loss; zero for a teacher without hidden states."""
        ...


@dataclass(frozen=True)
class OutputHead:
    """An output layer.

    Attributes:
        weight: (vocabulary, hidden).
        softcap: logits are softcap * tanh(logits / softcap); None for none.
        mask: added to the logits, float (vocabulary,): minus infinity for rows without a token, else 0.
    """

    weight: Any
    softcap: float | None = None
    mask: Any | None = None

    def logprobs(self, hidden: Any) -> tuple[Any, Any]:
        """Log probabilities, float32 (positions, vocabulary), and the softcap's derivative or None."""
        logits = (hidden.to(self.weight.dtype) @ self.weight.T).float()
        derivative = None
        if self.softcap:
            squashed = logits.div_(self.softcap).tanh_()
            derivative = 1 - squashed.square()
            logits = squashed.mul_(self.softcap)
        if self.mask is not None:
            logits += self.mask
        return logits.log_softmax(dim=-1), derivative


@dataclass(frozen=True)
class Losses:
    """In nats, float32 (positions,): KL to the teacher, and NLL of the target (0 without one)."""

    kl: Any
    nll: Any


def evaluate_losses(hidden: Any, head: OutputHead, teacher: TeacherOutput, target_ids: Any) -> Losses:
    """Both losses, without gradients.

    Args:
        hidden: the student's last hidden states (positions, hidden).
        target_ids: the next token of each position, int64 (positions,), or `IGNORE_INDEX`.
    """
    return _concatenate([chunk.losses for chunk in _chunks(hidden, head, teacher, target_ids)])


def distillation_loss(
    hidden: Any, head: OutputHead, teacher: TeacherOutput, target_ids: Any, hard_label_weight: float
) -> tuple[Any, Losses]:
    """The mean training loss, a scalar tensor with a gradient to `hidden`, and its parts per position."""
    import torch

    gradient, parts = torch.empty_like(hidden), []
    for chunk in _chunks(hidden, head, teacher, target_ids):
        parts.append(chunk.losses)
        with torch.no_grad():
            targets = _mix_hard_labels(chunk.teacher.exp_(), target_ids[chunk.at], hard_label_weight)
            error = chunk.student.exp_().sub_(targets).div_(len(hidden))
            error = error if chunk.derivative is None else error.mul_(chunk.derivative)
            gradient[chunk.at] = error.to(head.weight.dtype) @ head.weight
    losses = _concatenate(parts)
    labelled = torch.where(target_ids == IGNORE_INDEX, losses.kl, losses.nll)
    value = (1 - hard_label_weight) * losses.kl + hard_label_weight * labelled
    return _with_gradient().apply(hidden, gradient, value.mean()), losses


def label_loss(hidden: Any, head: OutputHead, target_ids: Any) -> Any:
    """Cross-entropy to the text, the mean over all positions; a scalar tensor with a gradient to `hidden`.

    As `distillation_loss` with a weight of 1, except that positions without a target add nothing.
    """
    import torch

    gradient, parts = torch.empty_like(hidden), []
    for start in range(0, len(hidden), CHUNK):
        at = slice(start, min(start + CHUNK, len(hidden)))
        with torch.no_grad():
            logprobs, derivative = head.logprobs(hidden[at])
            parts.append(_nll(logprobs, target_ids[at]))
            error = _minus_one_hot(logprobs.exp_(), target_ids[at]).div_(len(hidden))
            error = error if derivative is None else error.mul_(derivative)
            gradient[at] = error.to(head.weight.dtype) @ head.weight
    return _with_gradient().apply(hidden, gradient, torch.cat(parts).mean())


def next_token_ids(tokens: Any) -> Any:
    """Targets of token ids (rows, row_tokens), int64 (rows x row_tokens,); `IGNORE_INDEX` at row ends."""
    import torch

    last = torch.full_like(tokens[:, :1], IGNORE_INDEX)
    return torch.cat([tokens[:, 1:], last], dim=1).flatten()


@dataclass(frozen=True)
class _Chunk:
    """Some positions: log probabilities of student and teacher, and the softcap's derivative."""

    at: slice
    student: Any
    teacher: Any
    derivative: Any
    losses: Losses


def _chunks(hidden: Any, head: OutputHead, teacher: TeacherOutput, target_ids: Any) -> Iterator[_Chunk]:
    """All positions in order; the caller may modify a chunk's tensors."""
    import torch

    for start in range(0, len(hidden), CHUNK):
        at = slice(start, min(start + CHUNK, len(hidden)))
        with torch.no_grad():
            student, derivative = head.logprobs(hidden[at])
            theirs = teacher.logprobs(at.start, at.stop, student)
            losses = Losses(_kl(theirs, student), _nll(student, target_ids[at]))
        yield _Chunk(at=at, student=student, teacher=theirs, derivative=derivative, losses=losses)


def _concatenate(parts: Sequence[Losses]) -> Losses:
    import torch

    return Losses(torch.cat([part.kl for part in parts]), torch.cat([part.nll for part in parts]))


def _mix_hard_labels(probabilities: Any, target_ids: Any, hard_label_weight: float) -> Any:
    """The teacher's probabilities with `hard_label_weight` of the mass moved to the target, in place."""
    weight = (target_ids != IGNORE_INDEX).to(probabilities.dtype) * hard_label_weight
    probabilities *= (1 - weight)[:, None]
    return probabilities.scatter_add_(1, target_ids.clamp(min=0)[:, None], weight[:, None])


def _minus_one_hot(probabilities: Any, target_ids: Any) -> Any:
    """Probabilities minus the one-hot target, in place; zero rows where there is no target."""
    weight = (target_ids != IGNORE_INDEX).to(probabilities.dtype)
    probabilities *= weight[:, None]
    return probabilities.scatter_add_(1, target_ids.clamp(min=0)[:, None], -weight[:, None])


def _kl(teacher: Any, student: Any) -> Any:
    """KL(teacher || student) per position, of log probabilities (positions, vocabulary)."""
    difference = (teacher - student).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)  # masked rows: inf - inf
    return difference.mul_(teacher.exp()).sum(dim=-1)


def _nll(logprobs: Any, target_ids: Any) -> Any:
    import torch

    nll = -logprobs.gather(1, target_ids.clamp(min=0)[:, None])[:, 0]
    return torch.where(target_ids == IGNORE_INDEX, torch.zeros_like(nll), nll)


def _with_gradient() -> Any:
    """An autograd function whose gradient is known beforehand: (hidden, gradient, value) -> value."""
    import torch

    class PrecomputedGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, hidden: Any, gradient: Any, value: Any) -> Any:
            ctx.save_for_backward(gradient)
            return value.clone()

        @staticmethod
        def backward(ctx: Any, *outer: Any) -> Any:
            (gradient,) = ctx.saved_tensors
            return gradient * outer[0], None, None

    return PrecomputedGradient
