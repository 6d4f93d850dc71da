"""From a text to a decision: predict, then decide. The one path of serving, explaining and evaluation."""

from collections.abc import Mapping

from router.routing.cascade import RoutePredictor
from router.routing.decide import NONE_DISABLED, Decision, decide
from router.routing.model import GENERAL, Thresholds


def route(
    text: str,
    predictor: RoutePredictor,
    thresholds: Thresholds,
    experts: Mapping[str, str],
    generalist: str,
    disabled_reason: Mapping[str, str] = NONE_DISABLED,
) -> Decision:
    """The decision for `text`; the other arguments are `decide`'s. Blocks while it embeds."""
    if not text.strip():
        return _without_prediction(generalist, GENERAL, 0.0, fallback=True, reason="empty query")
    return decide(predictor.predict([text])[0], thresholds, experts, generalist, disabled_reason)


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
