"""The measured cost of decisions on labelled queries, beside the best choice, the generalist and chance.

A cost is that of the chosen model in the domain of the query's label, relative to the generalist's: +0.05 is
5 % more bits per byte. It is taken from the cost matrix, so at its pessimistic end; queries for which a model
was not measured are left out. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.routing.expected_cost import CostMatrix
from router.routing.model import GENERAL
from router.training.dataset import OOD, LabelledQuery
from slices.estimate import Estimate


@dataclass(frozen=True)
class DecisionCost:
    """Mean costs over n queries; the generalist's is 0, by definition.

    Attributes:
        unmeasured: queries that were left out.
        routed: of the models that were chosen.
        oracle: of the cheapest model for each label.
        random: of a model chosen uniformly among those that were measured and the generalist.
    """

    n: int
    unmeasured: int
    routed: Estimate
    oracle: Estimate
    generalist: Estimate
    random: Estimate


def decision_cost(
    queries: Sequence[LabelledQuery], chosen: Sequence[str], generalist: str, costs: CostMatrix
) -> DecisionCost | None:
    """The costs of the models `chosen` for `queries`, by name; None where fewer than two were measured."""
    rows = [
        row
        for query, name in zip(queries, chosen, strict=True)
        if (row := _costs_of_query(query.domain, name, generalist, costs)) is not None
    ]
    if len(rows) < 2:
        return None
    routed, oracle, random = np.array(rows).T
    return DecisionCost(
        n=len(rows),
        unmeasured=len(queries) - len(rows),
        routed=_mean(routed),
        oracle=_mean(oracle),
        generalist=Estimate(0.0, 0.0),
        random=_mean(random),
    )


def _costs_of_query(
    label: str, chosen: str, generalist: str, costs: CostMatrix
) -> tuple[float, float, float] | None:
    """The cost of the chosen model, the least, and the mean; None where one is not measured."""
    domain = GENERAL if label == OOD else label
    measured = {name: costs.at(name, domain) for name in costs.models}
    known = {generalist: 0.0} | {name: cost for name, cost in measured.items() if cost is not None}
    if len(known) <= len(measured) or chosen not in known:
        return None
    return known[chosen], min(known.values()), sum(known.values()) / len(known)


def _mean(values: NDArray[np.float64]) -> Estimate:
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))
