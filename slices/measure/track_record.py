"""How the FFN-ratio predictor fared: published cases, and those that `python -m benchmarks.ffn_ratio.run`
measured here.

Our own cases are read from `benchmarks/results/ffn_ratio.json`, never written down here. The predictor
itself is `slices.measure.predictor`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveFloat, ValidationError

from slices.errors import BadConfig
from slices.measure.predictor import Advice, Ratio, advise_layers, agreed, passes

FILE = "ffn_ratio.json"


class Measured(BaseModel):
    """A perplexity relative to bf16, as a benchmark file holds it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    value: PositiveFloat
    stderr: float = Field(0.0, ge=0)


class Case(BaseModel):
    """A model whose quantized forms somebody tried.

    `perplexity_ratio` is by type. `passed` is for reports that give no figure: whether Q2_K was said to.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    model: str
    ffn_ratios: list[PositiveFloat] = Field(min_length=1)  # one a layer; one for all will do
    swa_share: FiniteFloat = Field(ge=0, le=1)
    perplexity_ratio: dict[str, Measured] = {}
    passed: bool | None = None
    source: str = "measured here"


class _StoredTrial(BaseModel):
    """What of a ladder's trial in slice.json is of use here."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: str
    perplexity_ratio: Measured


class _Experiments(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    cases: list[Case]


@dataclass(frozen=True)
class Outcome:
    """A case, what the predictor says of it, and how that went (None: the case does not tell)."""

    case: Case
    advice: Advice
    right: bool | None  # the verdict
    type_passed: bool | None  # the type that it advises


PUBLISHED = (
    Case(
        model="Qwen2.5-7B",
        ffn_ratios=[18944 / 3584],
        swa_share=0.0,
        passed=True,
        source="reported as passing, without a figure",
    ),
    Case(
        model="Gemma 4 E4B, base",
        ffn_ratios=[4.0],
        swa_share=35 / 42,
        perplexity_ratio={
            "Q5_K_M": Measured(value=8.3 / 7.1, stderr=0),
            "Q4_K_M": Measured(value=23 / 7.1, stderr=0),
            "Q3_K_M": Measured(value=919 / 7.1, stderr=0),
        },
        source="ggml-org/llama.cpp#22407, perplexities 8.3, 23 and 919 against 7.1",
    ),
)


def track_record(file: Path | None = None) -> tuple[Outcome, ...]:
    """Every known case: the published ones, then those measured here.

    Args:
        file: a benchmark file with a list `cases`; by default the clone's or the package's own, if any.

    Raises:
        BadConfig: the file does not hold what it should; the field is named.
    """
    path = file or _own_file()
    return tuple(outcome(case) for case in (*PUBLISHED, *(_read(path) if path.is_file() else ())))


def outcome(case: Case) -> Outcome:
    """What the predictor says of a case, and whether it was right."""
    advice = advise_layers(case.ffn_ratios, case.swa_share)
    if case.passed is not None:
        return Outcome(
            case=case, advice=advice, right=case.passed == (advice.verdict == "safe"), type_passed=None
        )
    measured = {kind: Ratio(each.value, each.stderr) for kind, each in case.perplexity_ratio.items()}
    return Outcome(
        case=case, advice=advice, right=agreed(advice, measured), type_passed=passes(measured, advice.type)
    )


def read_ladder(trials: Iterable[object], where: str) -> dict[str, Ratio]:
    """Perplexity relative to bf16, by type, of a ladder as `slices.measure.ladder` records it.

    Args:
        where: the file that holds it, for the message.

    Raises:
        BadConfig: a trial does not hold what it should; the field is named.
    """
    try:
        read = [_StoredTrial.model_validate(trial) for trial in trials]
    except ValidationError as error:
        raise BadConfig(f"{where}: a trial of the ladder: {_first(error)}") from None
    return {trial.type: Ratio(trial.perplexity_ratio.value, trial.perplexity_ratio.stderr) for trial in read}


def summary(outcomes: tuple[Outcome, ...]) -> str:
    """The record on one line."""
    verdicts = [each.right for each in outcomes if each.right is not None]
    types = [each.type_passed for each in outcomes if each.type_passed is not None]
    return (
        f"right in {sum(verdicts)} of {len(verdicts)} known cases; "
        f"the type it advised passed in {sum(types)} of {len(types)}"
    )


def _read(path: Path) -> list[Case]:
    try:
        return _Experiments.model_validate_json(path.read_bytes()).cases
    except ValidationError as error:
        raise BadConfig(f"{path}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    return f"{where}: {first['msg']}"


def _own_file() -> Path:
    """The clone's, else what came inside the package."""
    here = Path(__file__).parent.parent
    inside = here / "benchmarks" / FILE
    return inside if inside.is_file() else here.parent / "benchmarks" / "results" / FILE
