"""Packed arrays: small, and close to what was packed."""

import numpy as np
import pytest

from router.routing.packing import MIN_DIM, pack, unpack


def test_weights_of_sparse_heads_take_one_byte_each_and_keep_small_values() -> None:
    weights = np.random.default_rng(0).standard_t(2, (3, MIN_DIM)).astype(np.float32) / 10
    weights[1] = 0
    stored = pack("head.0.weights", weights)
    assert stored["head.0.weights"].nbytes == weights.size
    again = unpack(stored)["head.0.weights"]
    assert again.dtype == np.float32 and set(unpack(stored)) == {"head.0.weights"}
    error = np.abs(again - weights)
    largest = np.abs(weights).max(axis=1, keepdims=True)
    assert (error <= np.sqrt(np.abs(weights) * largest) / 127 + largest / 4 / 127**2 + 1e-9).all()
    assert not again[1].any()


def test_other_arrays_keep_their_precision() -> None:
    dense = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    assert np.array_equal(unpack(pack("head.0.weights", dense))["head.0.weights"], dense)
    prototypes = unpack(pack("stage.0.prototypes", dense))["stage.0.prototypes"]
    assert prototypes == pytest.approx(dense, rel=1e-3)
