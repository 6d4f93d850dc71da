"""The matrix of costs of experts by domain, relative to the generalist, from the measurements of slice.json.

A cost is taken at the pessimistic end: the measured value plus `PESSIMISM` standard errors. Where bits per
byte and accuracy were measured, the larger cost counts. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from router.experts.measurements import ExpertMeasurements, MetricKey
from router.experts.policy import Objective, Policy
from router.routing.expected_cost import CostMatrix, ModelCost
from slices.estimate import Estimate
from slices.manifest import BITS, RELATIVE
from slices.tasks.multiple_choice import LETTER, TEXT

ACCURACIES = (LETTER, TEXT, "exact_match", "code")  # metrics of questions, as shares of right answers
PESSIMISM = 1.0  # standard errors above the measured cost


@dataclass(frozen=True)
class _Cell:
    """The cost in a domain, and whether the parent stands for a generalist that was not measured."""

    cost: float
    by_parent: bool


def cost_matrix(
    models: Mapping[str, ExpertMeasurements], homes: Mapping[str, str], generalist: str, policy: Policy
) -> CostMatrix:
    """The costs of every model but the generalist, and what the policy allows.

    Args:
        models: the measurements of every model that is served, by name.
        homes: the domain of each.
    """
    costs = {
        name: _model_cost(name, homes[name], each, models[generalist], generalist)
        for name, each in models.items()
        if name != generalist
    }
    by_quality = policy.prefer is Objective.QUALITY
    return CostMatrix(
        models={name: cost for name, cost in costs.items() if cost.by_domain},
        max_cost=0.0 if by_quality else policy.tolerance,
        assigned_only=not by_quality,
    )


def _model_cost(
    name: str, home: str, expert: ExpertMeasurements, generalist: ExpertMeasurements, generalist_name: str
) -> ModelCost:
    domains = dict.fromkeys(domain for domain, _, _ in expert.estimates)
    found = {domain: _cell(domain, expert, generalist) for domain in domains}
    cells = {domain: cell for domain, cell in found.items() if cell is not None}
    away = [cell.cost for domain, cell in cells.items() if domain != home]
    by_parent = any(cell.by_parent for cell in cells.values())
    return ModelCost(
        home=home,
        by_domain={domain: cell.cost for domain, cell in cells.items()},
        elsewhere=max(away) if away else None,
        note=f"{generalist_name} was not measured: its parent stands for it" if by_parent else "",
    )


def _cell(domain: str, expert: ExpertMeasurements, generalist: ExpertMeasurements) -> _Cell | None:
    """The largest pessimistic cost of bits and accuracies; None where none is comparable."""
    worst: _Cell | None = None
    for metric in (BITS, *ACCURACIES):
        keys = [key for key in expert.estimates if key[:2] == (domain, metric)]
        changes = [change for key in keys if (change := _change(key, expert, generalist)) is not None]
        if changes:
            latest, by_parent = changes[-1]
            sign = 1 if metric == BITS else -1
            cost = sign * latest.value + PESSIMISM * latest.stderr
            if worst is None or cost > worst.cost:
                worst = _Cell(cost, by_parent)
    return worst


def _change(
    key: MetricKey, expert: ExpertMeasurements, generalist: ExpertMeasurements
) -> tuple[Estimate, bool] | None:
    """The relative change from the generalist to the expert, and whether the parent stood for the former."""
    domain, metric, data = key
    ours = expert.estimates[key]
    our_change = expert.estimates.get((domain, metric + RELATIVE, data))
    same_parent = expert.parent == generalist.parent
    theirs = generalist.estimates.get(key)
    if theirs is not None and theirs.value > 0:
        their_change = generalist.estimates.get((domain, metric + RELATIVE, data)) if same_parent else None
        return _relative(ours, theirs, our_change, their_change), False
    parent = expert.parent_estimates.get(key)
    if parent is not None and parent.value > 0 and generalist.whole and same_parent:
        return _relative(ours, parent, our_change, Estimate(0.0, 0.0)), True
    return None


def _relative(
    ours: Estimate, theirs: Estimate, our_change: Estimate | None, their_change: Estimate | None
) -> Estimate:
    """ours / theirs - 1.

    The error is that of the changes from the common parent, which are paired, where both are known; else
    that of two independent estimates, which is too large for estimates on the same text.
    """
    share = ours.value / theirs.value
    if our_change is not None and their_change is not None:
        error = sqrt(our_change.stderr**2 + (share * their_change.stderr) ** 2) / (1 + their_change.value)
    else:
        error = sqrt(ours.stderr**2 + (share * theirs.stderr) ** 2) / theirs.value
    return Estimate(share - 1, error)
