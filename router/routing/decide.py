"""The routing decision: a pure function from a prediction to an expert, with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from router.routing.cascade import RoutePrediction
from router.routing.choose import Candidates, choose
from router.routing.expected_cost import NOT_MEASURED, CostMatrix
from router.routing.model import Thresholds

NONE_DISABLED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Decision:
    """The chosen expert and the reason.

    `confidence`: probability of `domain`, the likeliest. `margin`: over the runner-up. `distance`: 1 - cosine
    similarity to the nearest expert's question. `in_domain`: the share of experts' own questions that score
    lower. `decided_by`: the embedder of the stage that decided. `costs`: the expected cost of each model that
    was measured, relative to the generalist's (+0.05: 5 % more bits per byte).
    """

    expert: str
    domain: str
    confidence: float
    margin: float
    distance: float
    fallback: bool
    reason: str
    probabilities: dict[str, float]
    in_domain: float = 0.0
    decided_by: str = ""
    costs: dict[str, float] = field(default_factory=dict)


def decide(
    prediction: RoutePrediction,
    thresholds: Thresholds,
    experts: Mapping[str, str],
    generalist: str,
    disabled_reason: Mapping[str, str] = NONE_DISABLED,
    costs: CostMatrix = NOT_MEASURED,
    excluded: Mapping[str, str] = NONE_DISABLED,
) -> Decision:
    """Choose the expert for one query.

    Args:
        experts: an expert's name by domain.
        disabled_reason: by domain, why its expert is not used.
        costs: of the experts, relative to the generalist.
        excluded: by name, why an expert is not asked this query.
    """
    order = np.argsort(-prediction.probabilities, kind="stable")
    probabilities = {prediction.classes[index]: float(prediction.probabilities[index]) for index in order}
    domain, runner_up = (prediction.classes[index] for index in order[:2])
    expected = {
        name: cost
        for name in dict.fromkeys(experts.values())
        if name != generalist and (cost := costs.expected(name, probabilities)) is not None
    }
    candidates = Candidates(
        prediction=prediction,
        thresholds=thresholds,
        experts=experts,
        generalist=generalist,
        disabled_reason=disabled_reason,
        costs=costs,
        excluded=excluded,
        expected=expected,
        domain=domain,
        runner_up=runner_up,
        confidence=probabilities[domain],
        margin=probabilities[domain] - probabilities[runner_up],
    )
    expert, reason = choose(candidates)
    return Decision(
        expert=expert or generalist,
        domain=domain,
        confidence=candidates.confidence,
        margin=candidates.margin,
        distance=prediction.distance,
        fallback=expert is None,
        reason=reason,
        probabilities=probabilities,
        in_domain=prediction.in_domain,
        decided_by=prediction.embedder,
        costs={generalist: 0.0} | expected,
    )
