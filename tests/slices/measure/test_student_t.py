"""Student's t distribution against scipy's."""

import pytest
from scipy import stats  # type: ignore[import-untyped]

from slices.measure.student_t import critical_value, two_sided_p


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 8, 49, 1000])
def test_p_and_its_inverse_are_scipys(freedom: int) -> None:
    for t in (0.0, 0.3, -2.1, 5.0, 40.0):
        assert two_sided_p(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), abs=1e-13)
    for level in (0.5, 0.05, 0.0005):
        expected = stats.t.ppf(1 - level / 2, freedom)
        assert critical_value(level, freedom) == pytest.approx(expected, rel=1e-8)
