"""Expected costs by hand-made matrices."""

import pytest

from router.routing.expected_cost import CostMatrix, ModelCost

LEX = ModelCost(home="law", by_domain={"law": -0.1, "math": 0.4}, elsewhere=0.4)


def test_the_sum_over_domains() -> None:
    assert LEX.expected({"law": 0.5, "math": 0.3, "general": 0.2}) == pytest.approx(-0.05 + 0.12 + 0.08)


def test_elsewhere_counts_the_worst_that_was_measured() -> None:
    assert (LEX.at("biochem"), LEX.at("law")) == (0.4, -0.1)


def test_no_expectation_without_home_or_away() -> None:
    at_home_alone = ModelCost(home="law", by_domain={"law": -0.1}, elsewhere=None)
    away_alone = ModelCost(home="law", by_domain={"math": 0.4}, elsewhere=0.4)
    probabilities = {"law": 0.9, "math": 0.1}
    assert at_home_alone.expected(probabilities) is None
    assert away_alone.expected(probabilities) is None
    assert at_home_alone.expected({"law": 1.0}) == pytest.approx(-0.1)


def test_a_model_that_the_matrix_does_not_know() -> None:
    matrix = CostMatrix({"lex": LEX})
    assert (matrix.expected("bio", {"law": 1.0}), matrix.at("bio", "law"), matrix.note("bio")) == (
        None,
        None,
        "",
    )
