"""What a healing run does, decided before it starts. Everything here changes the weights that come out."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from slices.errors import BadConfig

Method = Literal["norms", "lora", "full"]
Precision = Literal["auto", "float32", "bfloat16"]
RATES: dict[str, float] = {"norms": 1e-2, "lora": 1e-3, "full": 5e-4}  # measured: docs/LOG.md


@dataclass(frozen=True)
class Healing:
    """One run. A step reads `batch` x `accumulate` rows of `context` tokens.

    Attributes:
        method: `norms` trains norm gains and layer scalars; `lora` low-rank additions to every matrix, which
            are merged back; `full` every matrix and gain. The embeddings stay as they are.
        rate: AdamW's learning rate at its highest; None takes the method's own.
        hard: how much of the target is the token that came, the rest being the teacher's distribution.
        warmup: steps of rising rate; from there it falls to zero in a straight line.
        every: steps between two measurements on held-out text.
        patience: measurements without a better one after which the run ends.
    """

    steps: int = 800
    method: Method = "full"
    rate: float | None = None
    batch: int = 2
    accumulate: int = 1
    context: int = 512
    hard: float = 0.1
    warmup: int = 20
    every: int = 100
    patience: int = 5
    rank: int = 16
    seed: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        """Refuse what no run can do.

        Raises:
            BadConfig: a value is out of its range; it is named.
        """
        if self.method not in get_args(Method):
            raise BadConfig(f"--method {self.method}: expected {', '.join(get_args(Method))}")
        if self.precision not in get_args(Precision):
            raise BadConfig(f"precision {self.precision!r}: expected {', '.join(get_args(Precision))}")
        for name in ("steps", "batch", "accumulate", "every", "patience", "rank"):
            if getattr(self, name) < 1:
                raise BadConfig(f"--{name} {getattr(self, name)}: expected at least 1")
        if self.context < 2:
            raise BadConfig(f"--context {self.context}: expected at least 2 tokens, a bos and one to predict")
        if not 0 <= self.hard <= 1:
            raise BadConfig(f"--hard {self.hard}: expected a share from 0 to 1")
        if self.warmup < 0 or self.seed < 0:
            raise BadConfig("warmup and --seed: expected no negative number")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise BadConfig(f"--rate {self.rate}: expected a positive learning rate")

    @property
    def top_rate(self) -> float:
        """The learning rate at its highest."""
        return RATES[self.method] if self.rate is None else self.rate

    @property
    def rows(self) -> int:
        """Rows that a step reads."""
        return self.batch * self.accumulate

    @property
    def tokens(self) -> int:
        """Tokens that all steps read, repetitions included."""
        return self.steps * self.rows * self.context

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, the first being 0."""
        rising = (step + 1) / self.warmup if step < self.warmup else 1.0
        return self.top_rate * rising * (1 - step / self.steps)

    def to_json(self) -> dict[str, Any]:
        """Every setting, the rate that is used among them."""
        return {**asdict(self), "rate": self.top_rate}
