"""What a reference expects of a text, in 800 bytes a token: the likeliest tokens and a sample of the rest.

KL(reference || model) needs the reference's distribution. Its head, the `TOP` likeliest tokens, is kept
whole; of the tail `SAMPLED` tokens are drawn in proportion to their probability, so that the tail's share of
the KL is estimated without bias rather than left out (merging the tail into one token gives a lower bound).
Compact enough to keep on disk, `slices.measure.teachers`; `slices.measure.reference` keeps all of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOP, SAMPLED = 64, 32  # tokens a position
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Expected:
    """A reference at some positions, on the columns of the models that are compared with it.

    `ids` and `logs` hold the head and then the sample, shape (positions, TOP + SAMPLED), fewer for a small
    vocabulary. `scored` is the log probability of the token that came, among all the reference's tokens;
    `lost` the probability of those that have no column; both (positions,). `void`: columns without a token.
    """

    ids: NDArray[np.int32]
    logs: Floats
    head: NDArray[np.int32]  # (1,) how many columns of `ids` are the head
    scored: Floats
    lost: Floats
    void: NDArray[np.int32]

    @property
    def top(self) -> NDArray[np.int32]:
        """The likeliest token at each position."""
        return self.ids[:, 0]


def expect(rows: Floats, lost: Floats, scored: Floats, void: NDArray[np.int32], seed: int) -> Expected:
    """Keep what matters of log probabilities (positions, vocabulary) that sum to one."""
    top, sampled = min(TOP, rows.shape[1]), min(SAMPLED, max(0, rows.shape[1] - TOP))
    ids = np.empty((len(rows), top + sampled), np.int32)
    random = np.random.default_rng(seed)
    for at, row in enumerate(rows):
        ids[at, :top] = likeliest(row, top)
        if sampled:
            ids[at, top:] = drawn(row, ids[at, :top], sampled, random.random())
    logs = np.take_along_axis(rows, ids.astype(np.int64), axis=1)
    return Expected(ids, logs, np.array([top], np.int32), scored, lost, void)


def likeliest(row: Floats, count: int) -> NDArray[np.int64]:
    """The `count` likeliest tokens of one position, the likeliest first and ties by number."""
    least = np.partition(row, len(row) - count)[len(row) - count]
    near = np.flatnonzero(row >= least)  # all of them and ties
    return near[np.argsort(-row[near], kind="stable")[:count]]


def drawn(row: Floats, without: NDArray[np.int32], count: int, start: float) -> NDArray[np.int64]:
    """`count` tokens beyond `without`, in proportion to their probability: one in each equal share of it.

    Args:
        start: in [0, 1), where in each share.
    """
    weights = np.exp(row)
    weights[without] = 0
    totals = np.cumsum(weights, dtype=np.float64)
    if totals[-1] <= 0:  # there is no tail: the sample then has no weight
        return np.repeat(np.int64(without[0]), count)
    at = (np.arange(count) + start) / count * totals[-1]
    found: NDArray[np.int64] = np.searchsorted(totals, at, side="right")
    return np.minimum(found, len(row) - 1)


def divergences(reference: Expected, given: Floats, wasted: Floats | float = 0.0) -> NDArray[np.float64]:
    """KL(reference || model) in nats at every position; (positions,). Zero where both are the same.

    What the model gives the whole tail is known without sampling, and so steadies the sample's part (a
    regression estimator; Cochran 1977, chapter 7). Its bias falls with the number of positions.

    Args:
        given: the model's log probabilities of `reference.ids`, same shape.
        wasted: what it gives to columns without a token, (positions,).
    """
    top, known = int(reference.head[0]), np.isfinite(reference.logs)
    gaps = np.subtract(reference.logs, given, out=np.zeros(given.shape, np.float64), where=known)
    share = np.exp(reference.logs[:, :top].astype(np.float64))
    head = (share * gaps[:, :top]).sum(axis=1)
    if top == gaps.shape[1]:
        return np.asarray(head)
    tail, theirs = _rest(share), _rest(np.exp(given[:, :top].astype(np.float64))) - wasted
    rough = tail * gaps[:, top:].mean(axis=1)
    off = tail * np.exp(-gaps[:, top:]).mean(axis=1) - theirs  # zero on average
    return np.asarray(head + rough - _slope(off, rough) * off)


def _slope(off: NDArray[np.float64], rough: NDArray[np.float64]) -> float:
    """Least squares. It is -1 where models are near, and 0 where a few tokens of the sample outweigh all."""
    spread = float(off.var())
    return min(0.0, max(-1.0, float(np.mean((off - off.mean()) * rough)) / spread)) if spread > 0 else 0.0


def _rest(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((1 - share.sum(axis=1)).clip(min=0))
