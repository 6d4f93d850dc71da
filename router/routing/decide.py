"""Which expert answers: a pure function from a reading to a decision, with the reason in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from router.routing.cascade import Reading
from router.routing.model import GENERAL, Thresholds

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Decision:
    """Who answers and why.

    `distance` is 1 - cosine to the nearest question that an expert is known to be asked; `belonging` the
    share of experts' own questions that look less like one; `decided_by` the last embedder that was asked.
    """

    expert: str
    domain: str
    confidence: float
    margin: float
    distance: float
    fallback: bool
    reason: str
    probabilities: dict[str, float]
    belonging: float = 0.0
    decided_by: str = ""


def decide(
    reading: Reading,
    limits: Thresholds,
    experts: Mapping[str, str],
    generalist: str,
    disabled_reason: Mapping[str, str] = NOTHING,
) -> Decision:
    """Choose for one query.

    Args:
        experts: an expert's name by domain.
        disabled_reason: domains that have an expert which is not to be asked, and why.
    """
    order = np.argsort(-reading.chances, kind="stable")
    domain, runner_up = (reading.classes[index] for index in order[:2])
    confidence = float(reading.chances[order[0]])
    margin = confidence - float(reading.chances[order[1]])
    objection = _objection(domain, runner_up, confidence, margin, reading, limits)
    objection = objection or _vacancy(domain, confidence, experts, disabled_reason)
    return Decision(
        expert=generalist if objection else experts[domain],
        domain=domain,
        confidence=confidence,
        margin=margin,
        distance=reading.distance,
        fallback=objection is not None,
        reason=objection or f"{domain} at {confidence:.2f}, {margin:.2f} ahead of {runner_up}",
        probabilities={reading.classes[index]: float(reading.chances[index]) for index in order},
        belonging=reading.belonging,
        decided_by=reading.embedder,
    )


def _objection(
    domain: str, runner_up: str, confidence: float, margin: float, reading: Reading, limits: Thresholds
) -> str | None:
    """Why no expert should answer, or None. The first that applies is the one told."""
    if domain == GENERAL:
        return f"a general question (probability {confidence:.2f})"
    if reading.belonging < limits.belonging:
        share = f"{100 * (1 - reading.belonging):.3g} % of them look more like one"
        return f"unlike the questions experts are asked: {share}, distance {reading.distance:.2f}"
    if confidence < limits.confidence:
        return f"unsure: {domain} has only {confidence:.2f}, under {limits.confidence:.2f}"
    if margin < limits.margin:
        return f"torn between {domain} and {runner_up}: {margin:.2f} apart, under {limits.margin:.2f}"
    return None


def _vacancy(
    domain: str, confidence: float, experts: Mapping[str, str], disabled_reason: Mapping[str, str]
) -> str | None:
    """Why nobody but the generalist can be asked of a domain, or None."""
    if domain in experts:
        return None
    return f"{domain} at {confidence:.2f}, but {disabled_reason.get(domain, 'there is no expert for it')}"
