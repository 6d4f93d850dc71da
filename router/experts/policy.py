"""Assignment policy: which model answers for a domain, by measured quality, cost or latency.

Pure. The figures come from `mom eval` by way of slice.json; an expert that was never measured beside the
generalist keeps its domain.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

TextKey: TypeAlias = tuple[str, str]  # domain, digest of the text


class Objective(StrEnum):
    """What the assignment optimizes."""

    QUALITY = "quality"
    COST = "cost"
    LATENCY = "latency"


@dataclass(frozen=True)
class Policy:
    """The objective, and the relative increase of bits per byte that is allowed for it.

    `quality`: a domain's expert, unless the generalist is better there by more than `tolerance`. `cost`: the
    smallest model, whatever its domain, within `tolerance` of the parent. `latency`: the fastest such. Where
    no model is known to be within it, or none was timed, both do as `quality` does.
    """

    prefer: Objective = Objective.QUALITY
    tolerance: float = 0.05


DEFAULT = Policy()


@dataclass(frozen=True)
class ExpertMeasurements:
    """Size, quality and speed of a model. Bits per byte, its own and its parent's, are by text."""

    bytes: int
    bits_per_byte: Mapping[TextKey, float] = field(default_factory=dict)
    parent_bits_per_byte: Mapping[TextKey, float] = field(default_factory=dict)
    decode_tokens_per_second: float | None = None


@dataclass(frozen=True)
class Assignment:
    """The model of a domain; None: the generalist, and `reason` says why."""

    expert: str | None
    reason: str = ""


def assign(
    domain: str, own: str, models: Mapping[str, ExpertMeasurements], generalist: str, policy: Policy
) -> Assignment:
    """The model for the queries of `domain`, whose newest expert is `own`.

    Args:
        models: the measurements of every model that is served, by name.
    """
    own_or_generalist = _unless_worse(domain, own, models[own], models[generalist], policy.tolerance)
    if policy.prefer is Objective.QUALITY:
        return own_or_generalist
    candidates = _within_tolerance(domain, models, policy.tolerance)
    if policy.prefer is Objective.LATENCY:
        candidates = {name: each for name, each in candidates.items() if each.decode_tokens_per_second}
    if not candidates:
        return own_or_generalist
    chosen = _best(candidates, own, policy.prefer)
    if chosen != generalist:
        return Assignment(chosen)
    superlative = "smallest" if policy.prefer is Objective.COST else "fastest"
    return Assignment(
        None, f"the generalist is the {superlative} within {policy.tolerance:.0%} of the parent there"
    )


def _best(candidates: Mapping[str, ExpertMeasurements], own: str, objective: Objective) -> str:
    """The smallest or the fastest; on a tie the domain's own expert."""
    if objective is Objective.COST:
        return min(candidates, key=lambda name: (candidates[name].bytes, name != own, name))
    return max(
        candidates, key=lambda name: (candidates[name].decode_tokens_per_second or 0.0, name == own, name)
    )


def _unless_worse(
    domain: str, own: str, expert: ExpertMeasurements, generalist: ExpertMeasurements, tolerance: float
) -> Assignment:
    """The expert, unless it was measured on the same text and needs too many bits more."""
    for text in _common_texts(domain, (expert.bits_per_byte, generalist.bits_per_byte)):
        increase = expert.bits_per_byte[text] / generalist.bits_per_byte[text] - 1
        if increase > tolerance:
            return Assignment(
                None,
                f"its expert {own} needs {increase:.1%} more bits than the generalist there, "
                f"over the {tolerance:.0%} allowed",
            )
    return Assignment(own)


def _within_tolerance(
    domain: str, models: Mapping[str, ExpertMeasurements], tolerance: float
) -> dict[str, ExpertMeasurements]:
    """Models that were measured on the domain beside their parent and are within `tolerance` of it."""
    return {
        name: each
        for name, each in models.items()
        for texts in [_common_texts(domain, (each.bits_per_byte, each.parent_bits_per_byte))]
        if texts
        and all(
            each.bits_per_byte[text] <= (1 + tolerance) * each.parent_bits_per_byte[text] for text in texts
        )
    }


def _common_texts(domain: str, figures: Iterable[Mapping[TextKey, float]]) -> list[TextKey]:
    """The domain's texts of which all have a figure."""
    first, *others = figures
    return [text for text in first if text[0] == domain and all(text in other for other in others)]
