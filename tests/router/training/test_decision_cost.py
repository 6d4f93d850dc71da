"""Costs of decisions on a small matrix, by hand."""

import pytest

from router.routing.expected_cost import CostMatrix, ModelCost
from router.training.dataset import LabelledQuery
from router.training.decision_cost import decision_cost

MATRIX = CostMatrix(
    {
        "lex": ModelCost("law", {"law": -0.1, "math": 0.5}, elsewhere=0.5),
        "mat": ModelCost("math", {"math": -0.2, "law": 0.7}, elsewhere=0.7),
    }
)
LABELS = ["law", "math", "general", "ood"]
QUERIES = [LabelledQuery("a", label) for label in LABELS]


def test_costs_of_right_and_wrong_decisions() -> None:
    found = decision_cost(QUERIES, ["lex", "lex", "gen", "mat"], "gen", MATRIX)
    assert found is not None and (found.n, found.unmeasured) == (4, 0)
    assert found.routed.value == pytest.approx((-0.1 + 0.5 + 0 + 0.7) / 4)
    assert found.oracle.value == pytest.approx((-0.1 - 0.2 + 0 + 0) / 4)
    assert found.random.value == pytest.approx((0.6 + 0.3 + 1.2 + 1.2) / 3 / 4)
    assert found.generalist.value == 0
    assert found.routed.stderr > found.oracle.stderr > 0


def test_the_best_decisions_cost_as_much_as_the_oracle() -> None:
    found = decision_cost(QUERIES, ["lex", "mat", "gen", "gen"], "gen", MATRIX)
    assert found is not None and found.routed == found.oracle


def test_what_was_not_measured_is_left_out() -> None:
    only_away = CostMatrix({**MATRIX.models, "bio": ModelCost("biochem", {"law": 0.4}, elsewhere=0.4)})
    biochem = LabelledQuery("a", "biochem")
    found = decision_cost([*QUERIES, biochem], ["lex", "mat", "gen", "new", "gen"], "gen", only_away)
    assert found is not None and (found.n, found.unmeasured) == (3, 2)
    assert decision_cost(QUERIES, ["gen"] * 4, "gen", CostMatrix()) is not None
    assert decision_cost(QUERIES[:1], ["lex"], "gen", MATRIX) is None
