"""A reference's next-token distributions in 800 bytes a position, and KL divergence estimated from them.

KL(reference || model) needs the reference's probability of every token: 1 MB a position for a vocabulary
of 262 thousand. Kept are the `TOP` likeliest tokens and `SAMPLED` tokens of the tail, drawn in proportion to
their probability, so that the tail's share of the KL is estimated without bias. (Merging the tail into one
token gives only a lower bound.) With at most `TOP` tokens in the vocabulary the KL is exact.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOP, SAMPLED = 64, 32  # tokens a position
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SampledDistribution:
    """Next-token distributions at some positions, over the columns (vocabulary) of the compared models.

    `token_ids` and `log_probs` (positions, TOP + SAMPLED) hold the likeliest tokens and then the sample;
    fewer for a small vocabulary. `target_log_probs` (positions,) are of the text's own tokens, over the
    reference's whole vocabulary. `lost_mass` (positions,) is the probability of tokens without a column.
    `unused_columns` stand for no token of the reference.
    """

    token_ids: NDArray[np.int32]
    log_probs: Floats
    top_count: NDArray[np.int32]  # (1,) how many of the columns of `token_ids` are the likeliest tokens
    target_log_probs: Floats
    lost_mass: Floats
    unused_columns: NDArray[np.int32]

    @property
    def top1(self) -> NDArray[np.int32]:
        """The likeliest token at each position; (positions,)."""
        return self.token_ids[:, 0]


def sample_distribution(
    log_probs: Floats, lost_mass: Floats, target_log_probs: Floats, unused: NDArray[np.int32], seed: int
) -> SampledDistribution:
    """Reduce normalized log probabilities (positions, vocabulary) to `TOP` + `SAMPLED` tokens a position."""
    vocabulary = log_probs.shape[1]
    top, sampled = min(TOP, vocabulary), min(SAMPLED, max(0, vocabulary - TOP))
    token_ids = np.empty((len(log_probs), top + sampled), np.int32)
    random = np.random.default_rng(seed)
    for position, row in enumerate(log_probs):
        token_ids[position, :top] = top_tokens(row, top)
        if sampled:
            token_ids[position, top:] = draw_tail(row, token_ids[position, :top], sampled, random.random())
    kept = np.take_along_axis(log_probs, token_ids.astype(np.int64), axis=1)
    return SampledDistribution(
        token_ids=token_ids,
        log_probs=kept,
        top_count=np.array([top], np.int32),
        target_log_probs=target_log_probs,
        lost_mass=lost_mass,
        unused_columns=unused,
    )


def top_tokens(row: Floats, count: int) -> NDArray[np.int64]:
    """The `count` likeliest tokens of one position, the likeliest first and ties by id."""
    threshold = np.partition(row, len(row) - count)[len(row) - count]
    candidates = np.flatnonzero(row >= threshold)  # ties with the last one included
    return candidates[np.argsort(-row[candidates], kind="stable")[:count]]


def draw_tail(row: Floats, excluded: NDArray[np.int32], count: int, offset: float) -> NDArray[np.int64]:
    """`count` tokens outside `excluded`, in proportion to their probability (systematic sampling).

    Args:
        offset: in [0, 1), where in each of `count` equal shares of the probability a token is taken.
    """
    weights = np.exp(row)
    weights[excluded] = 0
    cumulative = np.cumsum(weights, dtype=np.float64)
    if cumulative[-1] <= 0:  # there is no tail: the sample then has no weight
        return np.repeat(np.int64(excluded[0]), count)
    thresholds = (np.arange(count) + offset) / count * cumulative[-1]
    tokens: NDArray[np.int64] = np.searchsorted(cumulative, thresholds, side="right")
    return np.minimum(tokens, len(row) - 1)


def sampled_kl(
    reference: SampledDistribution, log_probs: Floats, unused_mass: Floats | float = 0.0
) -> NDArray[np.float64]:
    """Estimate KL(reference || model) in nats at every position; (positions,). 0 where both are the same.

    The model's total probability of the tail is known without sampling, and is the control variate of a
    regression estimator (Cochran 1977, chapter 7). Its bias falls with the number of positions.

    Args:
        log_probs: the model's, of `reference.token_ids`; same shape.
        unused_mass: the model's probability of columns that stand for no token, (positions,).
    """
    top, possible = int(reference.top_count[0]), np.isfinite(reference.log_probs)
    log_ratios = np.subtract(
        reference.log_probs, log_probs, out=np.zeros(log_probs.shape, np.float64), where=possible
    )
    top_probs = np.exp(reference.log_probs[:, :top].astype(np.float64))
    top_kl = (top_probs * log_ratios[:, :top]).sum(axis=1)
    if top == log_ratios.shape[1]:
        return np.asarray(top_kl)
    tail_mass = _tail_mass(top_probs)
    model_tail_mass = _tail_mass(np.exp(log_probs[:, :top].astype(np.float64))) - unused_mass
    tail_kl = tail_mass * log_ratios[:, top:].mean(axis=1)
    control = tail_mass * np.exp(-log_ratios[:, top:]).mean(axis=1) - model_tail_mass  # zero on average
    return np.asarray(top_kl + tail_kl - _regression_slope(control, tail_kl) * control)


def _regression_slope(control: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Least squares. -1 where the models are close, 0 where a few tokens of the sample outweigh the rest."""
    variance = float(control.var())
    if variance <= 0:
        return 0.0
    return min(0.0, max(-1.0, float(np.mean((control - control.mean()) * values)) / variance))


def _tail_mass(top_probs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((1 - top_probs.sum(axis=1)).clip(min=0))
