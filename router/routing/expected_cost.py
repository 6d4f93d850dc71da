"""The expected cost of asking a model: the sum over domains of the domain's probability times the cost there.

A cost is relative to the generalist's on the same text: 0 is the generalist's, +0.05 is 5 % more bits per
byte, or 5 % fewer right answers. Choosing the least expected cost is Bayes' rule for the decision (Chow,
1970). Pure; `router.experts.cost_matrix` makes the matrix from measurements.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelCost:
    """The costs of one model.

    `by_domain`: where it was measured. `elsewhere`: in every other domain but `home`, its own; None: not
    known. `note`: what the costs rest on, if not on the generalist's own measurement.
    """

    home: str
    by_domain: Mapping[str, float]
    elsewhere: float | None
    note: str = ""

    def at(self, domain: str) -> float | None:
        """The cost in a domain; None: not measured."""
        if domain in self.by_domain:
            return self.by_domain[domain]
        return None if domain == self.home else self.elsewhere

    def expected(self, probabilities: Mapping[str, float]) -> float | None:
        """The expected cost under the domains' probabilities; None: not measured in one of them."""
        total = 0.0
        for domain, probability in probabilities.items():
            cost = self.at(domain)
            if cost is None:
                return None
            total += probability * cost
        return total


@dataclass(frozen=True)
class CostMatrix:
    """The costs of the experts by name; those that are missing were not measured.

    `max_cost`: an expert is asked where its expected cost is lower than this; 0 is the generalist's.
    `assigned_only`: only the expert that is assigned to the likeliest domain may be asked.
    """

    models: Mapping[str, ModelCost] = field(default_factory=dict)
    max_cost: float = 0.0
    assigned_only: bool = False

    def expected(self, model: str, probabilities: Mapping[str, float]) -> float | None:
        """The expected cost of a model; None: not measured."""
        cost = self.models.get(model)
        return None if cost is None else cost.expected(probabilities)

    def at(self, model: str, domain: str) -> float | None:
        """The cost of a model in a domain; None: not measured."""
        cost = self.models.get(model)
        return None if cost is None else cost.at(domain)

    def note(self, model: str) -> str:
        """What a model's costs rest on, if not on the generalist's own measurement."""
        cost = self.models.get(model)
        return "" if cost is None else cost.note


NOT_MEASURED = CostMatrix()
