"""The learning curve: evaluations of a slice on held-out text, and which of them is better."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from slices.errors import RunFailed
from slices.estimate import Estimate, ratio
from slices.heal.objective import evaluate_losses, next_token_ids
from slices.heal.student import Student
from slices.heal.teacher import Teacher
from slices.heal.text import HealText
from slices.text.corpus import Part


@dataclass(frozen=True)
class EvalPoint:
    """An evaluation on held-out text after `step` optimizer steps.

    Attributes:
        tokens: training tokens read so far.
        kl: KL(teacher || slice) over the kept tokens, nats per token.
        nll: negative log-likelihood of the text's own tokens, nats per token.
        train_loss: mean training loss since the previous evaluation; None at step 0.
    """

    step: int
    tokens: int
    kl: Estimate
    bits_per_byte: Estimate
    nll: float
    train_loss: float | None

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "EvalPoint":
        """Back from JSON."""
        kl, bits = Estimate(**value["kl"]), Estimate(**value["bits_per_byte"])
        return cls(**{**value, "kl": kl, "bits_per_byte": bits})

    def improves(self, other: "EvalPoint", hard_label_weight: float) -> bool:
        """Whether it has fewer bits per byte than `other`; with no hard labels, a lower KL at no more bits.

        A slice that kept its parent's layers starts at a KL near 0, which training on the domain can only
        raise: its KL does not say what the training was worth, and the text does.
        """
        ours, theirs = self.bits_per_byte.value, other.bits_per_byte.value
        if hard_label_weight:
            return ours < theirs
        return self.kl.value < other.kl.value and ours <= theirs


def evaluate(
    student: Student,
    teacher: Teacher,
    text: HealText,
    step: int = 0,
    tokens: int = 0,
    train_loss: float | None = None,
    part: Part = Part.SELECTION,
) -> EvalPoint:
    """Evaluate the student, as it will be served, on every window of a held-out part.

    Standard errors are over documents.

    Raises:
        RunFailed: the slice gives no finite probability to the text.
    """
    heldout, indices = text.heldout(part)
    documents = sorted({window.document for window in heldout.windows})
    sums = np.zeros((4, len(documents)))  # KL, NLL, tokens, bytes
    with student.as_served():
        for index, window in zip(indices, heldout.windows, strict=True):
            sums[:, documents.index(window.document)] += (
                *_window_sums(student, teacher, text, index),
                window.nbytes,
            )
    if not np.isfinite(sums).all():
        raise RunFailed(f"step {step}: the slice gives no finite probability to the held-out text")
    kl, nll, count, nbytes = sums
    return EvalPoint(
        step=step,
        tokens=tokens,
        kl=ratio(kl, count),
        bits_per_byte=ratio(nll / np.log(2), nbytes),
        nll=float(nll.sum() / count.sum()),
        train_loss=train_loss,
    )


def _window_sums(student: Student, teacher: Teacher, text: HealText, index: int) -> tuple[float, float, int]:
    """Sums over a window's tokens after the bos: KL, NLL, number of tokens."""
    import torch

    tokens = torch.tensor(text.windows[index][None], dtype=torch.int64, device=student.device.name)
    with torch.no_grad():
        hidden = student.last_hidden_state(tokens)
        losses = evaluate_losses(hidden, student.head, teacher.window(index), next_token_ids(tokens))
    count = tokens.shape[1] - 1
    return float(losses.kl[:count].sum()), float(losses.nll[:count].sum()), count
