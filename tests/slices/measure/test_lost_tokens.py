"""The probability of tokens that the models lack: dropped, and at the first piece that spells them."""

import numpy as np
import pytest

from slices.measure.lost_tokens import add_to_first_pieces, restrict_vocabulary
from slices.measure.token_map import TokenMap
from slices.runtimes.softmax import log_softmax


def test_restriction_keeps_proportions_and_counts_the_rest() -> None:
    chunk = np.log(np.array([[0.1, 0.2, 0.3, 0.4]], dtype=np.float32))
    part, lost = restrict_vocabulary(chunk, np.array([3, -1, 1]))
    assert np.exp(part[0]) == pytest.approx([2 / 3, 0, 1 / 3], abs=1e-6)
    assert lost == pytest.approx([0.4], abs=1e-6)


def test_lost_mass_goes_to_first_pieces_by_hand() -> None:
    """Token 0 is spelled by the model's token 2, which is the parent's token 1; nothing is renormalized."""
    chunk = np.log(np.array([[0.1, 0.2, 0.3, 0.4]], dtype=np.float32))
    found = add_to_first_pieces(chunk, TokenMap(np.array([3, -1, 1]), np.array([2, 2, 0, 0])))
    assert np.exp(found[0]) == pytest.approx([0.7, 0, 0.3], abs=1e-6)


def test_only_what_has_no_first_piece_is_renormalized_away() -> None:
    chunk = np.log(np.array([[0.1, 0.2, 0.3, 0.4]], dtype=np.float32))
    found = add_to_first_pieces(chunk, TokenMap(np.array([3, 1]), np.array([1, 1, -1, 0])))
    assert np.exp(found[0]) == pytest.approx([0.4 / 0.7, 0.3 / 0.7], abs=1e-6)


def test_small_probabilities_are_not_lost_among_many() -> None:
    """40,000 lost tokens at one piece, which float32 sums would miss by more."""
    random = np.random.default_rng(0)
    chunk = log_softmax(random.normal(0, 3, (3, 40_100)).astype(np.float32))
    pieces = np.append(np.arange(100), np.full(40_000, 7))
    found = np.exp(add_to_first_pieces(chunk, TokenMap(np.arange(100), pieces)).astype(np.float64))
    exact = np.exp(chunk.astype(np.float64))
    assert found[:, 7] == pytest.approx(exact[:, 7] + exact[:, 100:].sum(axis=1), rel=1e-6)
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-6)
