"""The routing decision: a pure function from a prediction to an expert, with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from router.routing.cascade import RoutePrediction
from router.routing.model import GENERAL, Thresholds

NONE_DISABLED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Decision:
    """The chosen expert and the reason.

    `confidence`: probability of `domain`. `margin`: over the runner-up. `distance`: 1 - cosine similarity to
    the nearest expert's question. `in_domain`: the share of experts' own questions that score lower.
    `decided_by`: the embedder of the stage that decided.
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


def decide(
    prediction: RoutePrediction,
    thresholds: Thresholds,
    experts: Mapping[str, str],
    generalist: str,
    disabled_reason: Mapping[str, str] = NONE_DISABLED,
) -> Decision:
    """Choose the expert for one query.

    Args:
        experts: an expert's name by domain.
        disabled_reason: by domain, why its expert is not used.
    """
    order = np.argsort(-prediction.probabilities, kind="stable")
    domain, runner_up = (prediction.classes[index] for index in order[:2])
    confidence = float(prediction.probabilities[order[0]])
    margin = confidence - float(prediction.probabilities[order[1]])
    fallback = _uncertainty(domain, runner_up, confidence, margin, prediction, thresholds)
    fallback = fallback or _missing_expert(domain, confidence, experts, disabled_reason)
    certain = f"{domain}: probability {confidence:.2f}, margin {margin:.2f} over {runner_up}"
    return Decision(
        expert=generalist if fallback else experts[domain],
        domain=domain,
        confidence=confidence,
        margin=margin,
        distance=prediction.distance,
        fallback=fallback is not None,
        reason=fallback or certain,
        probabilities={prediction.classes[index]: float(prediction.probabilities[index]) for index in order},
        in_domain=prediction.in_domain,
        decided_by=prediction.embedder,
    )


def _uncertainty(
    domain: str,
    runner_up: str,
    confidence: float,
    margin: float,
    prediction: RoutePrediction,
    thresholds: Thresholds,
) -> str | None:
    """Why no expert should answer, the first reason that applies, or None."""
    if domain == GENERAL:
        return f"general question: probability {confidence:.2f}"
    if prediction.in_domain < thresholds.min_in_domain:
        scores = f"in-domain score {prediction.in_domain:.2g}, below {thresholds.min_in_domain:.2g}"
        return f"out-of-domain: {scores}, distance {prediction.distance:.2f}"
    if confidence < thresholds.min_confidence:
        least = thresholds.min_confidence
        return f"low confidence: {domain} has probability {confidence:.2f}, below {least:.2f}"
    if margin < thresholds.min_margin:
        return f"low margin: {domain} over {runner_up} by {margin:.2f}, below {thresholds.min_margin:.2f}"
    return None


def _missing_expert(
    domain: str, confidence: float, experts: Mapping[str, str], disabled_reason: Mapping[str, str]
) -> str | None:
    """Why a domain has no expert to route to, or None."""
    if domain in experts:
        return None
    reason = disabled_reason.get(domain, "there is no expert for it")
    return f"{domain}: probability {confidence:.2f}, but {reason}"
