"""The loss of healing: how far a slice is from what its teacher expects, and from the token that came.

    (1 - hard) KL(teacher || slice) + hard (-log p(token that came)), in nats a token

The output layer, the softmax and their gradient are one function over chunks of positions, so that the
logits of a batch are never in memory at once. Word-level distillation: Hinton et al., 2015, arXiv
1503.02531; that it heals pruned language models: Minitron, Muralidharan et al., 2024, arXiv 2407.14679.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from slices.heal.states import States

CHUNK = 256  # positions at a time
NONE = -1  # where no token is to come


class Target(Protocol):
    """What a teacher expects at the positions of a batch."""

    def logprobs(self, start: int, stop: int, given: Any) -> Any:
        """Log probabilities over the slice's vocabulary, float32 (stop - start, vocabulary).

        Args:
            given: the slice's own, for teachers that do not know every token's; not to be changed.
        """
        ...

    def apart(self, states: States) -> Any:
        """How far the slice's hidden states are from the teacher's; zero where that knows none of its own."""
        ...


@dataclass(frozen=True)
class Head:
    """The output layer of a slice or its teacher: weight (vocabulary, hidden), logits held below `cap`.

    `absent`, shape (vocabulary,), is minus infinity for rows without a token, else 0; None where all have.
    """

    weight: Any
    cap: float | None = None
    absent: Any | None = None

    def logprobs(self, hidden: Any) -> tuple[Any, Any]:
        """Log probabilities, float32 (positions, vocabulary), and the slope of the cap, None without one."""
        logits = (hidden.to(self.weight.dtype) @ self.weight.T).float()
        slope = None
        if self.cap:
            bent = logits.div_(self.cap).tanh_()
            slope = 1 - bent.square()
            logits = bent.mul_(self.cap)
        if self.absent is not None:
            logits += self.absent
        return logits.log_softmax(dim=-1), slope


@dataclass(frozen=True)
class Losses:
    """At every position, float32 (positions,): the divergence, and the nats of the token that came (or 0)."""

    kl: Any
    nll: Any


def measure(hidden: Any, head: Head, target: Target, came: Any) -> Losses:
    """Both losses without a gradient.

    Args:
        hidden: the slice's last hidden states (positions, hidden).
        came: the token that came at each position, int64 (positions,), `NONE` for none.
    """
    return _joined([chunk.losses for chunk in _chunks(hidden, head, target, came)])


def distil(hidden: Any, head: Head, target: Target, came: Any, hard: float) -> tuple[Any, Losses]:
    """The mean loss over all positions, through which `hidden` gets its gradient, and what it is made of."""
    import torch

    gradient, found = torch.empty_like(hidden), []
    for chunk in _chunks(hidden, head, target, came):
        found.append(chunk.losses)
        with torch.no_grad():
            error = chunk.given.exp_().sub_(_mixed(chunk.wanted.exp_(), came[chunk.at], hard))
            error = error.div_(len(hidden))
            error = error if chunk.slope is None else error.mul_(chunk.slope)
            gradient[chunk.at] = error.to(head.weight.dtype) @ head.weight
    losses = _joined(found)
    value = (1 - hard) * losses.kl + hard * torch.where(came == NONE, losses.kl, losses.nll)
    return _carrier().apply(hidden, gradient, value.mean()), losses


def from_text(hidden: Any, head: Head, came: Any) -> Any:
    """The nats of the token that came, mean over all positions, through which `hidden` gets its gradient.

    As `distil` with `hard` 1, but that positions where nothing is to come count nothing.
    """
    import torch

    gradient, found = torch.empty_like(hidden), []
    for start in range(0, len(hidden), CHUNK):
        at = slice(start, min(start + CHUNK, len(hidden)))
        with torch.no_grad():
            given, slope = head.logprobs(hidden[at])
            found.append(_surprise(given, came[at]))
            error = _less(given.exp_(), came[at]).div_(len(hidden))
            error = error if slope is None else error.mul_(slope)
            gradient[at] = error.to(head.weight.dtype) @ head.weight
    return _carrier().apply(hidden, gradient, torch.cat(found).mean())


@dataclass(frozen=True)
class _Chunk:
    """Some positions: log probabilities of slice and teacher (positions, vocabulary), the cap's slope."""

    at: slice
    given: Any
    wanted: Any
    slope: Any
    losses: Losses


def _chunks(hidden: Any, head: Head, target: Target, came: Any) -> Iterator[_Chunk]:
    """All positions in order; what a chunk holds is the caller's to change."""
    import torch

    for start in range(0, len(hidden), CHUNK):
        at = slice(start, min(start + CHUNK, len(hidden)))
        with torch.no_grad():
            given, slope = head.logprobs(hidden[at])
            wanted = target.logprobs(at.start, at.stop, given)
            losses = Losses(_divergence(wanted, given), _surprise(given, came[at]))
        yield _Chunk(at, given, wanted, slope, losses)


def _joined(parts: Sequence[Losses]) -> Losses:
    import torch

    return Losses(torch.cat([part.kl for part in parts]), torch.cat([part.nll for part in parts]))


def _mixed(share: Any, came: Any, hard: float) -> Any:
    """The teacher's probabilities with `hard` of the mass moved to the token that came, in place."""
    weight = (came != NONE).to(share.dtype) * hard
    share *= (1 - weight)[:, None]
    return share.scatter_add_(1, came.clamp(min=0)[:, None], weight[:, None])


def _less(share: Any, came: Any) -> Any:
    """Probabilities less what came, in place; nothing where nothing came."""
    weight = (came != NONE).to(share.dtype)
    share *= weight[:, None]
    return share.scatter_add_(1, came.clamp(min=0)[:, None], -weight[:, None])


def _divergence(wanted: Any, given: Any) -> Any:
    gap = (wanted - given).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)  # absent rows: inf - inf
    return gap.mul_(wanted.exp()).sum(dim=-1)


def _surprise(given: Any, came: Any) -> Any:
    import torch

    found = -given.gather(1, came.clamp(min=0)[:, None])[:, 0]
    return torch.where(came == NONE, torch.zeros_like(found), found)


def _carrier() -> Any:
    """A node of autograd that hands on a gradient which is known already."""
    import torch

    class Carried(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, hidden: Any, gradient: Any, value: Any) -> Any:
            ctx.save_for_backward(gradient)
            return value.clone()

        @staticmethod
        def backward(ctx: Any, *outer: Any) -> Any:
            (gradient,) = ctx.saved_tensors
            return gradient * outer[0], None, None

    return Carried
