"""What a ladder of quantized files is for, what was found on each trial, and which one is chosen.

Pure: the files are made and measured in `slices.measure.ladder`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slices.errors import BadConfig, SliceError
from slices.estimate import Estimate
from slices.measure.divergence import Divergence


@dataclass(frozen=True)
class Goal:
    """The smallest file whose mean KL to the bf16 slice is at most `max_kl` (nats a token) and which has at
    most `budget` bytes; with a budget alone, the one of the lowest mean KL that fits.

    Raises:
        BadConfig: neither is given, or one is no positive number.
    """

    max_kl: float | None = None
    budget: int | None = None

    def __post_init__(self) -> None:
        """Check both."""
        if self.max_kl is None and self.budget is None:
            raise BadConfig("the type auto needs a goal: give --max-kl X, --budget SIZE or both")
        if self.max_kl is not None and not 0 < self.max_kl < math.inf:
            raise BadConfig(f"--max-kl: expected nats a token above 0, such as 0.05, found {self.max_kl}")
        if self.budget is not None and self.budget < 1:
            raise BadConfig(f"--budget: expected a size above 0, found {self.budget}")

    def fits(self, nbytes: int) -> bool:
        """Whether a file of `nbytes` is within the budget."""
        return self.budget is None or nbytes <= self.budget

    def passes(self, kl: Estimate) -> bool:
        """Whether the mean alone is low enough; its standard error is for the reader to weigh."""
        return self.max_kl is None or kl.value <= self.max_kl

    def __str__(self) -> str:
        """As words."""
        parts = [
            f"a mean KL of at most {self.max_kl:g} nat a token" if self.max_kl is not None else "",
            f"at most {self.budget:,} bytes" if self.budget is not None else "",
        ]
        return " in ".join(filter(None, parts))


@dataclass(frozen=True)
class QuantTrial:
    """One type, made and measured on the domain's text. `seconds` is for both."""

    type: str
    bytes: int
    bits_per_weight: float
    passes: bool
    measured: Divergence
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As slice.json and `mom quantize --json` hold it."""
        found = self.measured
        return {
            "type": self.type,
            "bytes": self.bytes,
            "bits_per_weight": round(self.bits_per_weight, 3),
            "kl": {"mean": found.kl.value, "stderr": found.kl.stderr, "p99": found.kl_quantiles.p99},
            "kl_sampled_tokens": found.kl_sampled_tokens,
            "same_top1": asdict(found.same_top1),
            "bits_per_byte": asdict(found.bits_per_byte),
            "against_bf16": asdict(found.against),
            "perplexity_ratio": asdict(found.perplexity_ratio),
            "tokens": found.tokens,
            "data": found.data,
            "passes": self.passes,
            "seconds": round(self.seconds, 2),
        }


class GoalNotMet(SliceError):
    """No trial met the goal. `trials` are those that were measured."""

    def __init__(self, message: str, trials: Sequence[QuantTrial]) -> None:
        super().__init__(message)
        self.trials = tuple(trials)


def choose_trial(trials: Sequence[QuantTrial], goal: Goal) -> QuantTrial | None:
    """The trial that the goal asks for among those measured so far, None if there is none yet."""
    fitting = [trial for trial in trials if goal.fits(trial.bytes) and trial.passes]
    if goal.max_kl is not None:
        return min(fitting, key=lambda trial: trial.bytes, default=None)
    return min(fitting, key=lambda trial: (trial.measured.kl.value, trial.bytes), default=None)


def goal_not_met(trials: Sequence[QuantTrial], goal: Goal, sizes: Mapping[str, int]) -> GoalNotMet:
    """What to say where no trial met the goal. `sizes` are predicted, in bytes, of every type there is."""
    if not trials:
        smallest = min(sizes, key=lambda type: sizes[type])
        return GoalNotMet(
            f"no type fits: expected {goal}, but the smallest, {smallest}, takes {sizes[smallest]:,}; "
            "raise --budget, or cut the slice further",
            trials,
        )
    best = min(trials, key=lambda trial: trial.measured.kl.value)
    kl, p99 = best.measured.kl, best.measured.kl_quantiles.p99
    return GoalNotMet(
        f"no type reaches {goal}: the best of {len(trials)} measured is {best.type}, {best.bytes:,} bytes, "
        f"with a mean KL of {kl.value:.4g} ± {kl.stderr:.2g} (99th percentile {p99:.3g}); "
        "raise --max-kl or --budget; nothing was written",
        trials,
    )
