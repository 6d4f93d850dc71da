"""Token sampling from logits (temperature, top-k, top-p, repeat penalty): the same in every runtime."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slices.runtime import Sampling
from slices.runtimes.softmax import log_softmax_at

PENALTY_WINDOW = 64  # tokens back that a repeat penalty looks, as in llama.cpp
_GROUP = 64


def sample_token(
    logits: NDArray[np.float32], sampling: Sampling, recent: Sequence[int], random: np.random.Generator
) -> int:
    """Sample a token id.

    Args:
        logits: of the next token, shape (vocabulary,); left as they are.
        recent: the tokens so far; the last 64 are penalised if `sampling` says so.
        random: advanced by one draw, or not at all where temperature is 0.
    """
    logits = _penalised(logits, sampling.repeat_penalty, recent[-PENALTY_WINDOW:])
    if sampling.temperature <= 0:
        return int(np.argmax(logits))
    tokens = _top(logits, sampling.top_k)
    scaled = logits[tokens].astype(np.float64) / sampling.temperature
    weights = np.exp(scaled - scaled[0])
    cumulated = np.cumsum(weights / weights.sum())
    kept = int(np.searchsorted(cumulated, sampling.top_p)) + 1 if sampling.top_p < 1 else len(tokens)
    kept = max(1, min(kept, len(tokens)))
    return int(tokens[np.searchsorted(cumulated[:kept], random.random() * cumulated[kept - 1])])


def top_logprobs(
    logits: NDArray[np.float32], token: int, count: int
) -> tuple[float, list[tuple[int, float]]]:
    """The log probability (nats) of `token`, and the `count` most likely tokens with theirs, best first."""
    total = float(logits[token]) - float(log_softmax_at(logits[None], np.array([token]))[0])
    best = _top(logits, count) if count else np.empty(0, dtype=np.intp)
    return float(logits[token]) - total, [(int(each), float(logits[each]) - total) for each in best]


def _top(logits: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Ids of the `count` highest logits (all, where count is 0), the highest first.

    Sorting 262 thousand logits takes longer than a small model's step. At least `count` logits reach the
    count-th highest maximum of a group, so only what reaches it needs sorting. A group is a column: the
    maxima of rows take ten times as long.
    """
    groups = len(logits) // _GROUP
    if not 0 < count <= groups:
        order = np.argsort(-logits, kind="stable")
        return order[:count] if count > 0 else order
    maxima = logits[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
    candidates = np.flatnonzero(logits >= np.partition(maxima, -count)[-count])
    return candidates[np.argsort(-logits[candidates], kind="stable")][:count]


def _penalised(logits: NDArray[np.float32], penalty: float, recent: Sequence[int]) -> NDArray[np.float32]:
    if penalty == 1.0 or not recent:
        return logits
    seen = np.unique(np.asarray(recent))
    changed = logits.copy()
    changed[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    return changed
