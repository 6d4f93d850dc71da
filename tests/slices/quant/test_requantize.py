"""Rounding matrices by ggml: threads and experts change nothing, and what ends its process is refused."""

import numpy as np
import pytest

from slices.errors import RunFailed, Unsupported
from slices.quant.requantize import requantize, requantize_in_place
from slices.quant.types import IMATRIX_TYPES, TENSOR_TYPES

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.standard_normal((300, 512), np.float32)
WEIGHTS = RANDOM.uniform(0.1, 10, 512).astype(np.float32)


@pytest.mark.parametrize("type", [name for name in TENSOR_TYPES if name not in IMATRIX_TYPES])
def test_threads_change_nothing(type: str) -> None:
    for weights in (None, WEIGHTS):
        alone = requantize(ROWS, type, weights)
        assert np.array_equal(requantize(ROWS, type, weights, threads=3), alone)
        assert np.array_equal(requantize(ROWS[7:8], type, weights), alone[7:8])
    assert (type == "F32") == np.array_equal(alone, ROWS)


def test_each_expert_has_its_own_weights() -> None:
    experts = np.stack([ROWS, ROWS])
    importance = np.concatenate([WEIGHTS, WEIGHTS[::-1]])
    requantize_in_place(experts, "Q4_K", importance)
    assert np.array_equal(experts[0], requantize(ROWS, "Q4_K", WEIGHTS))
    assert np.array_equal(experts[1], requantize(ROWS, "Q4_K", WEIGHTS[::-1]))
    assert not np.array_equal(experts[0], experts[1])


def test_what_ends_the_process_is_refused() -> None:
    with pytest.raises(Unsupported, match="IQ2_S needs an importance matrix"):
        requantize(ROWS, "IQ2_S")
    broken = ROWS.copy()
    broken[3, 4] = np.nan
    with pytest.raises(RunFailed, match="not finite"):
        requantize(broken, "Q4_K")
    with pytest.raises(RunFailed, match="not finite"):
        requantize(ROWS, "Q4_K", np.full(512, np.inf, np.float32))
