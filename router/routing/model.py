"""A fitted router: linear heads over embedders, pooled in cascade stages from cheap to expensive. Only numpy.

Each head gives class logits from one embedder's vectors. A stage pools the logits of the heads so far with
the k-nearest-neighbour votes of its prototypes (logarithmic opinion pool, Genest and Zidek, 1986) and scores
how in-domain a text is. Nothing is read or fitted here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import Vectors

Labels = NDArray[np.int32]  # (n,) class indices

GENERAL = "general"
GENERAL_LOG_ODDS_WEIGHT = 0.05  # of the log odds against "general" in the in-domain score (docs/log.md)
_MAX_LOG_ODDS = 20.0


@dataclass(frozen=True)
class Thresholds:
    """When an expert is chosen: least probability, least margin over the runner-up, least in-domain score."""

    min_confidence: float = 0.3
    min_margin: float = 0.05
    min_in_domain: float = 0.05


@dataclass(frozen=True)
class LinearHead:
    """A linear classifier over one embedder's vectors.

    `reference_logits` (classes,) are its logits for `embedder.REFERENCE_TEXT`.
    """

    embedder: str
    weights: NDArray[np.float32]  # (classes, dim)
    bias: NDArray[np.float32]  # (classes,)
    reference_logits: NDArray[np.float32]  # (classes,)

    def __post_init__(self) -> None:
        """Store the weights in Fortran order, which products with sparse vectors would copy to otherwise."""
        object.__setattr__(self, "weights", np.asfortranarray(self.weights))

    def logits(self, vectors: Vectors) -> NDArray[np.float64]:
        """Class logits, (n, classes), of vectors (n, dim)."""
        logits: NDArray[np.float64] = np.asarray(vectors @ self.weights.T + self.bias, dtype=np.float64)
        return logits


@dataclass(frozen=True)
class ExitThresholds:
    """When a stage decides without the next: margin at least `min_margin` and in-domain score at least
    `min_in_domain`, or in-domain score below `ood_below`. By default never."""

    min_margin: float = 1.0
    min_in_domain: float = 1.0
    ood_below: float = 0.0


@dataclass(frozen=True)
class Stage:
    """A cascade stage: a pool of the first heads and of prototypes.

    Attributes:
        pool_weights: of the logits of each head and of the prototypes' votes, (heads so far + 1,).
        prototypes: questions of every class or centroids of them, in the last head's vectors, (n, dim).
        labels: the class of each, (n,).
        score_quantiles: of the raw in-domain scores of experts' out-of-fold questions, ascending, (101,).
        exit_thresholds: when it decides without the next stage.
    """

    pool_weights: NDArray[np.float64]
    prototypes: NDArray[np.float32]
    labels: NDArray[np.int32]
    score_quantiles: NDArray[np.float64]
    exit_thresholds: ExitThresholds = ExitThresholds()

    @property
    def head_count(self) -> int:
        """The number of heads that it pools."""
        return len(self.pool_weights) - 1


@dataclass(frozen=True)
class Router:
    """A fitted router; `stages` has one for each head that a decision can rest on.

    `aliases` renames classes, by class; several classes of one alias are merged: their probabilities add up.
    """

    classes: tuple[str, ...]
    heads: tuple[LinearHead, ...]
    stages: tuple[Stage, ...]
    thresholds: Thresholds
    queries_sha256: str
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains of predictions: `classes` after `aliases`, each once."""
        return tuple(dict.fromkeys(self.aliases.get(name, name) for name in self.classes))

    @property
    def embedders(self) -> tuple[str, ...]:
        """Names of the embedders that it was fitted on, cheapest first."""
        return tuple(head.embedder for head in self.heads)


def pool_probabilities(
    logits: Sequence[NDArray[np.float64]], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Class probabilities, (n, classes), of a weighted logarithmic opinion pool of logits (n, classes)."""
    return softmax(sum(weight * each for weight, each in zip(weights, logits, strict=True)))


def raw_in_domain_scores(
    similarity: NDArray[np.float64], probabilities: NDArray[np.float64], classes: Sequence[str]
) -> NDArray[np.float64]:
    """Uncalibrated in-domain scores, (n,): similarity to an expert's question, log odds against "general"."""
    if GENERAL not in classes:
        return similarity
    general = np.clip(probabilities[:, list(classes).index(GENERAL)], 1e-12, 1 - 1e-12)
    log_odds = np.clip(np.log1p(-general) - np.log(general), -_MAX_LOG_ODDS, _MAX_LOG_ODDS)
    scores: NDArray[np.float64] = similarity + GENERAL_LOG_ODDS_WEIGHT * log_odds
    return scores


def in_domain_scores(raw: NDArray[np.float64], quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """In-domain scores, (n,): the share of experts' own questions with a lower raw score.

    Below their first percentile it decays exponentially, at the rate of the lowest percentiles, so that
    out-of-domain texts stay ranked.
    """
    levels = np.linspace(0.0, 1.0, len(quantiles))
    inside: NDArray[np.float64] = np.interp(raw, quantiles, levels)
    edge, scale = quantiles[1], max(quantiles[5] - quantiles[1], 1e-6) / np.log(5)
    tail = levels[1] * np.exp(np.minimum(raw - edge, 0.0) / scale)
    return np.where(raw < edge, tail, inside)


def expert_mask(classes: Sequence[str]) -> NDArray[np.bool_]:
    """Which classes can have an expert, (classes,)."""
    return np.array([name != GENERAL for name in classes])


def margins(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The difference of the two highest class probabilities, (n,)."""
    ordered = np.sort(probabilities, axis=1)
    difference: NDArray[np.float64] = ordered[:, -1] - ordered[:, -2]
    return difference


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities over the last axis of logits (n, classes)."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities
