"""Hyperparameters of a healing run. Every field changes the weights that come out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import EnumType, StrEnum
from math import sqrt
from typing import Any, get_type_hints

from slices.errors import BadConfig, SliceError
from slices.quant.recipe import check_imatrix, make_recipe

PRECISIONS = ("auto", "float32", "bfloat16")
SMALL_KL = 0.5  # nats per token: below it a slice is close to its parent and gets the gentler defaults


class HealMethod(StrEnum):
    """Which parameters are trained."""

    NORMS = "norms"
    LORA = "lora"
    FULL = "full"


class LostTokens(StrEnum):
    """What becomes of the teacher's probability of tokens that the slice's vocabulary lacks.

    `first-piece`: it goes to the first of the slice's tokens that spell the lost one. `drop`: it is dropped,
    and the rest is renormalized.
    """

    FIRST_PIECE = "first-piece"
    DROP = "drop"


# Peak learning rates for steps of `_LR_TOKENS` tokens: (large KL, small KL).
_DEFAULT_LR = {  # only `full` is measured (docs/log.md)
    HealMethod.NORMS: (1e-2, 1e-3),
    HealMethod.LORA: (5e-4, 1e-4),
    HealMethod.FULL: (1e-4, 2e-5),
}
_LR_TOKENS, _MAX_LR_SCALE = 512, 4.0
_DEFAULT_HARD_LABEL_WEIGHT = (0.1, 0.5)  # (large KL, small KL)
_DEFAULT_HIDDEN_STATE_WEIGHT = (10.0, 0.0)
DEFAULT_QAT_FRACTION = 1.0  # of `full`; not yet measured against smaller ones (docs/log.md)
_AT_LEAST_ONE = ("steps", "batch", "grad_accum", "eval_every", "patience", "rank")


@dataclass(frozen=True)
class HealConfig:
    """Hyperparameters of one run. An optimizer step reads `batch` x `grad_accum` rows of `row_tokens` tokens.

    Attributes:
        method: `norms` trains norm gains and layer scalars; `lora` low-rank adapters on every matrix, which
            are merged afterwards; `full` every matrix and gain. The embeddings are frozen.
        lr: AdamW's peak learning rate; the default grows with the square root of the tokens per step
            (Malladi et al., 2022, arXiv 2205.10287).
        hard_label_weight: weight of the cross-entropy to the text's own tokens, from 0 to 1; the rest is the
            KL weight. A slice that kept all of its parent's layers learns from it only how cut words are
            spelled by the tokens that are left.
        hidden_state_weight: weight of the hidden-state loss (`slices.heal.hidden_states`); 0 with a cached
            teacher. `lr`, `hard_label_weight` and `hidden_state_weight` default (None) by the slice's
            initial KL (`with_defaults`).
        lost_tokens: what the teacher's probability of tokens that were cut becomes. The KL of the learning
            curve is to the same distribution that is taught.
        label_only_fraction: fraction of the steps, at the end, that train on the text alone: without a
            teacher forward pass a step takes two thirds to three quarters of the time (docs/log.md).
        fade: fraction of the steps, at the start, over which the contribution of dropped layers goes linearly
            from 1 to 0 (`slices.heal.fade`); 0 trains the slice alone.
        warmup_steps: linear warm-up; then linear decay to zero.
        eval_every: steps between two evaluations on held-out text.
        patience: evaluations without improvement before early stopping.
        compiled: whether layers are compiled; None compiles where the run is long enough to gain by it.
        qat: the quantized type that is trained for (`slices.heal.qat`), of `slices.quant.types.TYPES`; None
            for none.
        qat_fraction: fraction of the steps, at the end, that train for it; None for the method's default.
        qat_embedding_type: type of the embeddings, as in `slices.quant.recipe.make_recipe`.
        qat_imatrix: whether it is quantized with an importance matrix of the slice on the training text.
    """

    steps: int = 500
    method: HealMethod = HealMethod.FULL
    lr: float | None = None
    batch: int = 4
    grad_accum: int = 1
    row_tokens: int = 512
    hard_label_weight: float | None = None
    hidden_state_weight: float | None = None
    lost_tokens: LostTokens = LostTokens.DROP
    label_only_fraction: float = 0.0
    fade: float = 0.0
    warmup_steps: int = 20
    eval_every: int = 100
    patience: int = 5
    rank: int = 16
    seed: int = 0
    precision: str = "auto"
    compiled: bool | None = None
    qat: str | None = None
    qat_fraction: float | None = None
    qat_embedding_type: str | None = None
    qat_imatrix: bool = False

    def __post_init__(self) -> None:
        """Validate every field.

        Raises:
            BadConfig: a value is out of its range; its option is named.
        """
        if self.method not in list(HealMethod):
            raise BadConfig(f"--method {self.method}: expected {', '.join(HealMethod)}")
        if self.lost_tokens not in list(LostTokens):
            raise BadConfig(f"--lost-tokens {self.lost_tokens}: expected {', '.join(LostTokens)}")
        if self.precision not in PRECISIONS:
            raise BadConfig(f"precision {self.precision!r}: expected {', '.join(PRECISIONS)}")
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise BadConfig(f"{_option(name)} {getattr(self, name)}: expected at least 1")
        if self.row_tokens < 2:
            raise BadConfig(
                f"--row-tokens {self.row_tokens}: expected at least 2 tokens, a bos and one to predict"
            )
        if self.warmup_steps < 0 or self.seed < 0:
            raise BadConfig("warmup_steps and --seed: expected no negative number")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise BadConfig(f"--lr {self.lr}: expected a positive learning rate")
        self._check_weights()
        self._check_qat()

    def _check_qat(self) -> None:
        if self.qat is None:
            if self.qat_fraction is not None or self.qat_embedding_type is not None or self.qat_imatrix:
                raise BadConfig("--qat-fraction, --embedding-type and --imatrix: expected with --qat TYPE")
            return
        if self.qat == "BF16" or self.method == HealMethod.LORA:
            what = "--qat BF16: expected a type" if self.qat == "BF16" else "--method lora: expected a method"
            raise BadConfig(f"{what} that --qat can train: a quantized type, by full or norms")
        try:
            check_imatrix(make_recipe(self.qat, self.qat_embedding_type), self.qat_imatrix)
        except SliceError as error:
            raise BadConfig(f"--qat {self.qat}: {error}") from None
        if self.qat_fraction is not None and not 0 < self.qat_fraction <= 1:
            raise BadConfig(f"--qat-fraction {self.qat_fraction}: expected a number above 0, at most 1")
        if self.method == HealMethod.NORMS and self.qat_fraction not in (None, 1):
            raise BadConfig("--qat-fraction: expected none with --method norms, whose matrices are quantized "
                            "from the first step")  # fmt: skip

    @property
    def qat_start(self) -> int:
        """The first step, counted from 0, that trains for the quantized type; `steps` where none does."""
        if self.qat is None:
            return self.steps
        default = DEFAULT_QAT_FRACTION if self.method == HealMethod.FULL else 1.0
        fraction = default if self.qat_fraction is None else self.qat_fraction
        return min(round((1 - fraction) * self.steps), self.steps - 1)

    @property
    def qat_interval(self) -> int:
        """Steps between two roundings of the weights; the i-quants take longer to compute."""
        return 16 if (self.qat or "").startswith("IQ") else 8

    def _check_weights(self) -> None:
        for name in ("hard_label_weight", "label_only_fraction", "fade"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise BadConfig(f"{_option(name)} {value}: expected a number from 0 to 1")
        if self.fade + self.label_only_fraction > 1:
            raise BadConfig(
                f"--fade {self.fade} and --label-only-fraction {self.label_only_fraction}: expected at most "
                "1 together, since dropped layers fade out under the teacher"
            )
        if self.hidden_state_weight is not None and not 0 <= self.hidden_state_weight < float("inf"):
            raise BadConfig(f"--hidden-state-weight {self.hidden_state_weight}: expected 0 or more")

    def with_defaults(self, kl: float) -> "HealConfig":
        """The config with every open default filled in, for a slice of this KL to its parent (nats/token)."""
        regime = int(kl < SMALL_KL)
        lr, hard, hidden = self.lr, self.hard_label_weight, self.hidden_state_weight
        return replace(
            self,
            lr=_DEFAULT_LR[self.method][regime] * self._lr_scale if lr is None else lr,
            hard_label_weight=_DEFAULT_HARD_LABEL_WEIGHT[regime] if hard is None else hard,
            hidden_state_weight=_DEFAULT_HIDDEN_STATE_WEIGHT[regime] if hidden is None else hidden,
        )

    @property
    def _lr_scale(self) -> float:
        return min(_MAX_LR_SCALE, sqrt(self.rows_per_step * self.row_tokens / _LR_TOKENS))

    @property
    def rows_per_step(self) -> int:
        """Rows that an optimizer step reads."""
        return self.batch * self.grad_accum

    @property
    def tokens(self) -> int:
        """Tokens that all steps read, repetitions included."""
        return self.steps * self.rows_per_step * self.row_tokens

    @property
    def fade_steps(self) -> int:
        """Steps in which dropped layers still contribute."""
        return round(self.fade * self.steps)

    def is_label_only(self, step: int) -> bool:
        """Whether a step, counted from 0, trains without the teacher."""
        return step >= round((1 - self.label_only_fraction) * self.steps)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0: linear warm-up, then linear decay to zero."""
        warmup = (step + 1) / self.warmup_steps if step < self.warmup_steps else 1.0
        return (self.lr or 0.0) * warmup * (1 - step / self.steps)

    def to_json(self) -> dict[str, Any]:
        """Every field."""
        return {**asdict(self), "method": self.method.value, "lost_tokens": self.lost_tokens.value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "HealConfig":
        """Back from JSON.

        Raises:
            BadConfig: a field is unknown, as another version of mom may have written it.
        """
        kinds = get_type_hints(cls)
        if unknown := value.keys() - kinds.keys():
            raise BadConfig(f"a healing has the setting {min(unknown)!r}, which this version does not know")
        enums = {name: kind for name, kind in kinds.items() if isinstance(kind, EnumType)}
        return cls(**{name: enums[name](each) if name in enums else each for name, each in value.items()})


def _option(field: str) -> str:
    """The command-line option of a field."""
    return "--" + field.replace("_", "-")
