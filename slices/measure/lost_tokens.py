"""What becomes of a reference's probability of tokens that the compared models lack.

Two distributions over the models' vocabulary: restricted to the shared tokens and renormalized, in which a
cut vocabulary cannot be seen; and by first piece, where each lost token's probability goes to the first of
the tokens that spell it (`slices.measure.token_map`), so that a model has to expect the spelling.
"""

import numpy as np
from numpy.typing import NDArray

from slices.measure.token_map import TokenMap
from slices.runtimes.softmax import ROWS

Floats = NDArray[np.float32]


def restrict_vocabulary(log_probs: Floats, ids: NDArray[np.int64]) -> tuple[Floats, NDArray[np.float64]]:
    """Condition log probabilities (positions, vocabulary) on the tokens `ids` (part,), where -1 is no token.

    Returns:
        Log probabilities that sum to one, (positions, part), and the other tokens' mass, (positions,).
    """
    part = np.where(ids >= 0, log_probs[:, ids], np.float32(-np.inf))
    total = np.empty(len(part))
    for start in range(0, len(part), ROWS):
        total[start : start + ROWS] = np.exp(part[start : start + ROWS]).sum(axis=1, dtype=np.float64)
    part -= np.log(total).astype(np.float32)[:, None]
    return part, np.maximum(0.0, 1.0 - total)


def add_to_first_pieces(log_probs: Floats, token_map: TokenMap) -> Floats:
    """Log probabilities (positions, vocabulary) with each lost token's at its first piece, (positions, part).

    They sum to one: only what has no first piece, rows without a token as a rule, is renormalized away. Sums
    are in float64, a position at a time.
    """
    count = len(token_map.ids)
    columns = np.where(token_map.first_pieces < 0, count, token_map.first_pieces)
    part = np.empty((len(log_probs), count), np.float32)
    for position, row in enumerate(log_probs):
        mass = np.bincount(columns, weights=np.exp(row), minlength=count + 1)[:count]
        with np.errstate(divide="ignore"):  # a probability of 0
            part[position] = np.log(mass / mass.sum())
    return part
