"""What a healing run is worth as it goes on: points on held-out text, and the best of them."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from slices.errors import RunFailed
from slices.estimate import Estimate, ratio
from slices.heal.objective import measure
from slices.heal.student import Student
from slices.heal.teacher import Teacher, came_after
from slices.heal.text import Text


@dataclass(frozen=True)
class Point:
    """A slice on held-out text after `step` steps."""

    step: int
    tokens: int  # read by then
    kl: Estimate  # nats a token, to the teacher on the kept tokens
    bits_per_byte: Estimate
    nll: float  # of the text's own tokens, nats a token
    trained: float | None  # the mean training loss since the point before

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Point":
        """Back from JSON."""
        kl, bits = Estimate(**value["kl"]), Estimate(**value["bits_per_byte"])
        return cls(**{**value, "kl": kl, "bits_per_byte": bits})

    def loss(self, hard: float) -> float:
        """What is trained on, with that share of the text's own tokens, in nats a token."""
        return (1 - hard) * self.kl.value + hard * self.nll

    def improves(self, other: "Point", hard: float) -> bool:
        """Whether to give `other` for this one: a lower loss, at no more bits for the text."""
        return self.loss(hard) < other.loss(hard) and self.bits_per_byte.value <= other.bits_per_byte.value


def measured(
    student: Student,
    teacher: Teacher,
    text: Text,
    step: int = 0,
    tokens: int = 0,
    trained: float | None = None,
) -> Point:
    """Read every held-out window with the slice and hold it against the teacher; errors by document.

    Raises:
        RunFailed: the slice gives no finite probability to the text.
    """
    documents = sorted({window.document for window in text.heldout.windows})
    sums = np.zeros((4, len(documents)))  # kl, nats, tokens, bytes
    for number, window in enumerate(text.heldout.windows):
        sums[:, documents.index(window.document)] += (
            *_window(student, teacher, text, number),
            window.nbytes,
        )
    if not np.isfinite(sums).all():
        raise RunFailed(f"step {step}: the slice gives no finite probability to the held-out text")
    kl, nll, count, nbytes = sums
    bits = ratio(nll / np.log(2), nbytes)
    return Point(step, tokens, ratio(kl, count), bits, float(nll.sum() / count.sum()), trained)


def _window(student: Student, teacher: Teacher, text: Text, number: int) -> tuple[float, float, int]:
    """Sums over a window's tokens but the bos: divergence, nats, how many."""
    import torch

    tokens = torch.tensor(text.windows[number][None], dtype=torch.int64, device=student.device.name)
    with torch.no_grad():
        hidden = student.hidden(tokens)
        found = measure(hidden, student.head, teacher.window(number), came_after(tokens))
    count = tokens.shape[1] - 1
    return float(found.kl[:count].sum()), float(found.nll[:count].sum()), count
