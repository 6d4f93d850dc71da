"""Which expert gets a domain's questions, by what was measured of all of them: quality, cost or speed.

Pure. The figures come from `mom eval` by way of slice.json; an expert that was never measured beside the
generalist keeps its domain.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["quality", "cost", "latency"]


@dataclass(frozen=True)
class Policy:
    """What matters, and how many bits per byte more, as a share, are allowed for it.

    `quality`: a domain's expert, unless the generalist is better there by more than `within`. `cost`: the
    smallest model, whatever its domain, that needs no more than `within` above the parent. `latency`: the
    fastest such. Where none is known to be so good, or so fast, both do as `quality` does.
    """

    prefer: Kind = "quality"
    within: float = 0.05


BEST = Policy()  # the default


@dataclass(frozen=True)
class Worth:
    """What was measured of a model. Bits per byte and the parent's are by (domain, digest of the text)."""

    bytes: int
    bits: Mapping[tuple[str, str], float] = field(default_factory=dict)
    parent: Mapping[tuple[str, str], float] = field(default_factory=dict)
    speed: float | None = None  # tokens written a second


@dataclass(frozen=True)
class Assignment:
    """Who answers for a domain; None: the generalist, and `reason` says why."""

    expert: str | None
    reason: str = ""


def assign(domain: str, own: str, worths: Mapping[str, Worth], generalist: str, policy: Policy) -> Assignment:
    """Who gets the questions of `domain`, whose newest expert is `own`.

    Args:
        worths: of every model that is served, by name.
    """
    if policy.prefer == "quality":
        return _better_than(domain, own, worths[own], worths[generalist], policy.within)
    good = _good_enough(domain, worths, policy.within)
    if policy.prefer == "latency":
        good = {name: worth for name, worth in good.items() if worth.speed}
    if not good:
        return _better_than(domain, own, worths[own], worths[generalist], policy.within)
    if policy.prefer == "cost":
        chosen = min(good, key=lambda name: (good[name].bytes, name != own, name))
    else:
        chosen = max(good, key=lambda name: (good[name].speed or 0.0, name == own, name))
    if chosen == generalist:
        word = "smallest" if policy.prefer == "cost" else "fastest"
        return Assignment(
            None, f"the generalist is the {word} within {policy.within:.0%} of the parent there"
        )
    return Assignment(chosen)


def _better_than(domain: str, own: str, expert: Worth, general: Worth, within: float) -> Assignment:
    """The expert, unless it was measured on the same text and needs too many bits more."""
    for text in _texts(domain, (expert.bits, general.bits)):
        more = expert.bits[text] / general.bits[text] - 1
        if more > within:
            said = f"needs {more:.1%} more bits than the generalist there, over the {within:.0%} allowed"
            return Assignment(None, f"its expert {own} {said}")
    return Assignment(own)


def _good_enough(domain: str, worths: Mapping[str, Worth], within: float) -> dict[str, Worth]:
    """Models that were measured on the domain beside their parent and need little more than it."""
    return {
        name: worth
        for name, worth in worths.items()
        for texts in [_texts(domain, (worth.bits, worth.parent))]
        if texts and all(worth.bits[text] <= (1 + within) * worth.parent[text] for text in texts)
    }


def _texts(domain: str, known: Iterable[Mapping[tuple[str, str], float]]) -> list[tuple[str, str]]:
    """The domain's texts that are known on all sides."""
    first, *others = known
    return [text for text in first if text[0] == domain and all(text in other for other in others)]
