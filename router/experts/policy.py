"""Assignment policy: which model is a domain's expert, by quality, cost or latency.

Pure. The figures come from `mom eval` by way of slice.json. Whether the expert is then asked, or the
generalist, is decided query by query from the expected costs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from router.experts.measurements import ExpertMeasurements, TextKey


class Objective(StrEnum):
    """What the assignment optimizes."""

    QUALITY = "quality"
    COST = "cost"
    LATENCY = "latency"


@dataclass(frozen=True)
class Policy:
    """The objective, and the relative increase of bits per byte that is allowed for it.

    `quality`: a domain's own expert, asked where its expected cost is below the generalist's. `cost`: the
    smallest model, whatever its domain, within `tolerance` of the parent, asked where its expected cost is
    less than `tolerance` above the generalist's. `latency`: the fastest such. Where no model is known to be
    within it, or none was timed, both take the domain's own expert.
    """

    prefer: Objective = Objective.QUALITY
    tolerance: float = 0.05


DEFAULT = Policy()


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
    if policy.prefer is Objective.QUALITY:
        return Assignment(own)
    candidates = _within_tolerance(domain, models, policy.tolerance)
    if policy.prefer is Objective.LATENCY:
        candidates = {name: each for name, each in candidates.items() if each.decode_tokens_per_second}
    if not candidates:
        return Assignment(own)
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
