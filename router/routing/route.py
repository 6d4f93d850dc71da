"""From a text to a decision: predict, then decide. The one path of serving, explaining and evaluation."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from router.routing.cascade import RoutePredictor
from router.routing.decide import NONE_DISABLED, Decision, decide
from router.routing.expected_cost import NOT_MEASURED, CostMatrix
from router.routing.model import GENERAL, Thresholds

Misfit: TypeAlias = Callable[[str, str], str | None]  # text and expert, to why it does not fit the expert


def no_misfit(text: str, expert: str) -> None:
    """Every text fits every expert."""


def route(
    text: str,
    predictor: RoutePredictor,
    thresholds: Thresholds,
    experts: Mapping[str, str],
    generalist: str,
    disabled_reason: Mapping[str, str] = NONE_DISABLED,
    costs: CostMatrix = NOT_MEASURED,
    misfit: Misfit = no_misfit,
) -> Decision:
    """The decision for `text`. Blocks while it embeds.

    Args:
        misfit: an expert for which it gives a reason is not asked.

    The other arguments are `decide`'s.
    """
    if not text.strip():
        return _without_prediction(generalist, GENERAL, 0.0, fallback=True, reason="empty query")
    prediction, excluded = predictor.predict([text])[0], dict[str, str]()
    while True:
        decision = decide(prediction, thresholds, experts, generalist, disabled_reason, costs, excluded)
        reason = None if decision.expert == generalist else misfit(text, decision.expert)
        if reason is None:
            return decision
        excluded[decision.expert] = reason


def by_name(expert: str, domain: str) -> Decision:
    """The decision of a caller who names an expert."""
    return _without_prediction(expert, domain, 1.0, fallback=False, reason="expert named by the request")


def _without_prediction(expert: str, domain: str, confidence: float, fallback: bool, reason: str) -> Decision:
    return Decision(
        expert=expert,
        domain=domain,
        confidence=confidence,
        margin=0.0,
        distance=0.0,
        fallback=fallback,
        reason=reason,
        probabilities={},
    )
