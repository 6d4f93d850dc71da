"""The choice between the experts and the generalist, with the reason. Pure.

What no expert should answer goes to the generalist. Else the model of the least expected cost answers. Where
the cost of the likeliest domain's expert was not measured, thresholds on the probabilities decide for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from router.routing.cascade import RoutePrediction
from router.routing.expected_cost import CostMatrix
from router.routing.model import GENERAL, Thresholds


@dataclass(frozen=True)
class Candidates:
    """The prediction for a query and the experts that may answer it.

    `experts`: by domain. `disabled_reason`: by domain, `excluded`: by name, why an expert is not asked.
    `expected`: the experts' expected costs where measured. `domain`: the likeliest, of probability
    `confidence`, by `margin` over `runner_up`.
    """

    prediction: RoutePrediction
    thresholds: Thresholds
    experts: Mapping[str, str]
    generalist: str
    disabled_reason: Mapping[str, str]
    costs: CostMatrix
    excluded: Mapping[str, str]
    expected: Mapping[str, float]
    domain: str
    runner_up: str
    confidence: float
    margin: float


def choose(query: Candidates) -> tuple[str | None, str]:
    """The expert, None for the generalist, and the reason."""
    if reason := _out_of_domain(query):
        return None, reason
    own = query.experts.get(query.domain)
    certain = f"{query.domain}: probability {query.confidence:.2f}"
    certain = f"{certain}, margin {query.margin:.2f} over {query.runner_up}"
    unmeasured = own is not None and own not in query.expected and own not in query.excluded
    refused = _refused_by_thresholds(query) if unmeasured or own is None else None
    if own is not None and unmeasured and refused is None:
        return own, certain if own == query.generalist else f"{certain}; cost of {own} not measured"
    candidates = _allowed(query, own)
    best = min(candidates, key=lambda name: candidates[name], default=None)
    if best is not None and candidates[best] < query.costs.max_cost:
        cost = _with_note(f"expected cost {candidates[best]:+.1%}", query.costs.note(best))
        return best, f"{certain}; {cost}" if best == own else f"{certain}; {best} has {cost}"
    return None, refused or _generalist_reason(query, own, best)


def _allowed(query: Candidates, own: str | None) -> dict[str, float]:
    """The expected costs of the experts that may be asked."""
    allowed = {name: cost for name, cost in query.expected.items() if name not in query.excluded}
    if query.costs.assigned_only:
        return {name: cost for name, cost in allowed.items() if name == own}
    return allowed


def _out_of_domain(query: Candidates) -> str | None:
    """Why no expert should answer, or None."""
    if query.domain == GENERAL:
        return f"general question: probability {query.confidence:.2f}"
    prediction, least = query.prediction, query.thresholds.min_in_domain
    if prediction.in_domain < least:
        scores = f"in-domain score {prediction.in_domain:.2g}, below {least:.2g}"
        return f"out-of-domain: {scores}, distance {prediction.distance:.2f}"
    return None


def _refused_by_thresholds(query: Candidates) -> str | None:
    """Why an expert whose expected cost is not known should not answer, or None."""
    domain, confidence, margin = query.domain, query.confidence, query.margin
    if confidence < query.thresholds.min_confidence:
        least = query.thresholds.min_confidence
        return f"low confidence: {domain} has probability {confidence:.2f}, below {least:.2f}"
    if margin < query.thresholds.min_margin:
        least = query.thresholds.min_margin
        return f"low margin: {domain} over {query.runner_up} by {margin:.2f}, below {least:.2f}"
    if domain not in query.experts:
        reason = query.disabled_reason.get(domain, "there is no expert for it")
        return f"{domain}: probability {confidence:.2f}, but {reason}"
    own = query.experts[domain]
    cost = query.costs.at(own, domain)
    if cost is not None and cost >= query.costs.max_cost:
        reason = _with_note(f"{own} costs {cost:+.1%} there", query.costs.note(own))
        return f"{domain}: probability {confidence:.2f}, but {reason}"
    return None


def _generalist_reason(query: Candidates, own: str | None, best: str | None) -> str:
    """Why the generalist answers where the domain's expert is excluded or no expert costs less."""
    certain = f"{query.domain}: probability {query.confidence:.2f}"
    if own is not None and own in query.excluded:
        return f"{certain}, but {query.excluded[own]}"
    name = best if own is None or own not in query.expected else own
    if name is None:
        return f"{certain}, but no expert may be asked"
    cost = f"the expected cost of {name} is {query.expected[name]:+.1%}"
    return f"{certain}, but {_with_note(cost, query.costs.note(name))}"


def _with_note(text: str, note: str) -> str:
    return f"{text} ({note})" if note else text
