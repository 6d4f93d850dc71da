"""A fitted router: linear heads over embedders, pooled in stages from cheap to dear. Only numpy.

Each head has an opinion, logits of the classes from one embedder's vectors. A stage pools those of the heads
so far and of its nearest prototypes (a weighted product of their probabilities: logarithmic opinion pool,
Genest and Zidek, 1986) and tells how much a text belongs to what experts are asked. Nothing is read or
fitted here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import Vectors

Labels = NDArray[np.int32]  # (n,) class numbers

GENERAL = "general"
ODDS_SHARE = 0.05  # of the log odds against "general" in what belongs, beside the similarity (docs/log.md)
_MOST = 20.0  # log odds beyond this say no more


@dataclass(frozen=True)
class Thresholds:
    """When to trust an expert: least probability, least lead over the runner-up, least belonging."""

    confidence: float = 0.3
    margin: float = 0.05
    belonging: float = 0.05


@dataclass(frozen=True)
class Head:
    """One embedder's linear opinion. `probe` are its logits for `embedder.REFERENCE_TEXT`, (classes,)."""

    embedder: str
    weights: NDArray[np.float32]  # (classes, dim)
    bias: NDArray[np.float32]  # (classes,)
    probe: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Lay the weights out as sparse vectors need them, which would copy them at every product else."""
        object.__setattr__(self, "weights", np.asfortranarray(self.weights))

    def logits(self, vectors: Vectors) -> NDArray[np.float64]:
        """What each class gets, (n, classes), for vectors (n, dim)."""
        found: NDArray[np.float64] = np.asarray(vectors @ self.weights.T + self.bias, dtype=np.float64)
        return found


@dataclass(frozen=True)
class Sure:
    """When a stage needs no further one: its class leads by `lead` and the text belongs at least `above`,
    or it belongs less than `below`. By itself it always needs one, where there is one."""

    lead: float = 1.0
    above: float = 1.0
    below: float = 0.0


@dataclass(frozen=True)
class Stage:
    """What is made of the first heads and of prototypes.

    Attributes:
        shares: what the logits of each head and of the prototypes' votes count, (heads so far + 1,).
        prototypes: of the questions of every class, in the last head's vectors, (n, dim).
        labels: the class of each, (n,).
        quantiles: of how unseen questions of experts' domains score, least first, (101,).
        sure: when it decides alone.
    """

    shares: NDArray[np.float64]
    prototypes: NDArray[np.float32]
    labels: NDArray[np.int32]
    quantiles: NDArray[np.float64]
    sure: Sure = Sure()

    @property
    def heads(self) -> int:
        """How many heads it pools."""
        return len(self.shares) - 1


@dataclass(frozen=True)
class Router:
    """A fitted router; `stages` has one for each head that a decision can rest on."""

    classes: tuple[str, ...]
    heads: tuple[Head, ...]
    stages: tuple[Stage, ...]
    thresholds: Thresholds
    queries_sha256: str

    @property
    def embedders(self) -> tuple[str, ...]:
        """Names of what it was fitted on, cheap to dear."""
        return tuple(head.embedder for head in self.heads)


def pooled(logits: Sequence[NDArray[np.float64]], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of each class, (n, classes), from each opinion's logits (n, classes)."""
    return softmax(sum(share * each for share, each in zip(shares, logits, strict=True)))


def score(
    similarity: NDArray[np.float64], chances: NDArray[np.float64], classes: Sequence[str]
) -> NDArray[np.float64]:
    """How much texts look like what experts are asked, (n,): near a known one, and not general."""
    if GENERAL not in classes:
        return similarity
    general = np.clip(chances[:, list(classes).index(GENERAL)], 1e-12, 1 - 1e-12)
    odds: NDArray[np.float64] = np.clip(np.log1p(-general) - np.log(general), -_MOST, _MOST)
    return similarity + ODDS_SHARE * odds


def belonging(scores: NDArray[np.float64], quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of experts' own questions that score less, (n,); below their lowest hundredth it falls to zero
    as fast as between their lowest hundredths, so that strangers are still told apart."""
    shares = np.linspace(0.0, 1.0, len(quantiles))
    found: NDArray[np.float64] = np.interp(scores, quantiles, shares)
    edge, scale = quantiles[1], max(quantiles[5] - quantiles[1], 1e-6) / np.log(5)
    tail = shares[1] * np.exp(np.minimum(scores - edge, 0.0) / scale)
    return np.where(scores < edge, tail, found)


def experts(classes: Sequence[str]) -> NDArray[np.bool_]:
    """Which classes an expert may have, (classes,)."""
    return np.array([name != GENERAL for name in classes])


def leads(chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the likeliest class is ahead of the next, (n,)."""
    top = np.sort(chances, axis=1)
    found: NDArray[np.float64] = top[:, -1] - top[:, -2]
    return found


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows that sum to 1, shape as given."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return shares
