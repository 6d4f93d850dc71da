"""What a healing run does, decided before it starts. Everything here changes the weights that come out."""

from dataclasses import asdict, dataclass, replace
from math import sqrt
from typing import Any

from slices.errors import BadConfig

METHODS = ("norms", "lora", "full")
PRECISIONS = ("auto", "float32", "bfloat16")
INTACT = 0.5  # nats: a slice that is nearer to its parent than this is polished, not mended
_RATES = {  # highest, to mend and to polish, for steps of `_STEP` tokens; only full is measured (docs/log.md)
    "norms": (1e-2, 1e-3),
    "lora": (5e-4, 1e-4),
    "full": (1e-4, 2e-5),
}
_STEP, _STEEPEST = 512, 4.0
_HARD = (0.1, 0.5)
_STATES = (10.0, 0.0)


@dataclass(frozen=True)
class Healing:
    """One run. A step reads `batch` x `accumulate` rows of `context` tokens.

    Attributes:
        method: `norms` trains norm gains and layer scalars; `lora` low-rank additions to every matrix, which
            are merged back; `full` every matrix and gain. The embeddings stay as they are.
        rate: AdamW's learning rate at its highest; by itself it grows with the root of the tokens in a step
            (Malladi et al., 2022, arXiv 2205.10287).
        hard: how much of the target is the token that came, the rest being the teacher's distribution. A
            slice of all its parent's layers has little to learn from it but the spelling of cut words.
        states: how strongly what enters each layer is drawn to what enters it in the parent, by the share of
            its length that it is off (`slices.heal.states`); nothing where a saved teacher stands in.
            Rate, `hard` and `states` None are decided by the slice's KL at the start (`settled`).
        alone: share of the steps, the last ones, that learn from the text alone: without the teacher a step
            takes two thirds to three quarters of the time (docs/log.md).
        warmup: steps of rising rate; from there it falls to zero in a straight line.
        every: steps between two measurements on held-out text.
        patience: measurements without a better one after which the run ends.
        compiled: whether layers are compiled for the rows; None where the run is long enough to gain by it.
    """

    steps: int = 500
    method: str = "full"
    rate: float | None = None
    batch: int = 4
    accumulate: int = 1
    context: int = 512
    hard: float | None = None
    states: float | None = None
    alone: float = 0.0
    warmup: int = 20
    every: int = 100
    patience: int = 5
    rank: int = 16
    seed: int = 0
    precision: str = "auto"
    compiled: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what no run can do.

        Raises:
            BadConfig: a value is out of its range; it is named.
        """
        if self.method not in METHODS:
            raise BadConfig(f"--method {self.method}: expected {', '.join(METHODS)}")
        if self.precision not in PRECISIONS:
            raise BadConfig(f"precision {self.precision!r}: expected {', '.join(PRECISIONS)}")
        for name in ("steps", "batch", "accumulate", "every", "patience", "rank"):
            if getattr(self, name) < 1:
                raise BadConfig(f"--{name} {getattr(self, name)}: expected at least 1")
        if self.context < 2:
            raise BadConfig(f"--context {self.context}: expected at least 2 tokens, a bos and one to predict")
        if self.hard is not None and not 0 <= self.hard <= 1:
            raise BadConfig(f"--hard {self.hard}: expected a share from 0 to 1")
        if self.states is not None and not 0 <= self.states < float("inf"):
            raise BadConfig(f"--states {self.states}: expected a weight of 0 or more")
        if not 0 <= self.alone <= 1:
            raise BadConfig(f"--alone {self.alone}: expected a share from 0 to 1")
        if self.warmup < 0 or self.seed < 0:
            raise BadConfig("warmup and --seed: expected no negative number")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise BadConfig(f"--rate {self.rate}: expected a positive learning rate")

    def settled(self, kl: float) -> "Healing":
        """The same with nothing left open, for a slice of this KL to its parent, in nats a token."""
        regime = int(kl < INTACT)
        return replace(
            self,
            rate=_RATES[self.method][regime] * self._steepness if self.rate is None else self.rate,
            hard=_HARD[regime] if self.hard is None else self.hard,
            states=_STATES[regime] if self.states is None else self.states,
        )

    @property
    def _steepness(self) -> float:
        return min(_STEEPEST, sqrt(self.rows * self.context / _STEP))

    @property
    def rows(self) -> int:
        """Rows that a step reads."""
        return self.batch * self.accumulate

    @property
    def tokens(self) -> int:
        """Tokens that all steps read, repetitions included."""
        return self.steps * self.rows * self.context

    def is_alone(self, step: int) -> bool:
        """Whether a step, the first being 0, does without the teacher."""
        return step >= round((1 - self.alone) * self.steps)

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, the first being 0."""
        rising = (step + 1) / self.warmup if step < self.warmup else 1.0
        return (self.rate or 0.0) * rising * (1 - step / self.steps)

    def to_json(self) -> dict[str, Any]:
        """Every setting."""
        return asdict(self)
