"""Which evaluation of a learning curve is the better one."""

import pytest

from slices.estimate import Estimate
from slices.heal.curve import EvalPoint


def point(kl: float, bits: float) -> EvalPoint:
    return EvalPoint(
        step=1,
        tokens=1,
        kl=Estimate(kl, 0.0),
        bits_per_byte=Estimate(bits, 0.0),
        nll=2.0,
        train_loss=None,
    )


@pytest.mark.parametrize(
    ("hard_label_weight", "kl", "bits", "better"),
    [
        (0.5, 0.06, 0.76, True),  # an intact slice after domain training: the KL rises, the bits fall
        (0.1, 0.06, 0.80, False),
        (0.5, 0.00, 0.78, False),
        (0.0, 0.06, 0.76, False),  # with no hard labels the KL decides
        (0.0, 0.01, 0.78, True),
        (0.0, 0.01, 0.79, False),
    ],
)
def test_bits_decide_where_the_text_is_taught(
    hard_label_weight: float, kl: float, bits: float, better: bool
) -> None:
    given = point(0.02 if hard_label_weight == 0 else 0.0, 0.78)
    assert point(kl, bits).improves(given, hard_label_weight) is better
