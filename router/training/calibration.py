"""From out-of-fold logits to a stage's pool weights, score quantiles and exit thresholds. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.routing.model import (
    ExitThresholds,
    Labels,
    Stage,
    expert_mask,
    in_domain_scores,
    margins,
    pool_probabilities,
    raw_in_domain_scores,
    softmax,
)

# Least agreement of an early stage's decisions with the last stage's.
MIN_AGREEMENT_DOMAIN, MIN_AGREEMENT_IN_DOMAIN, MIN_AGREEMENT_OOD = 0.985, 0.99, 0.95
_QUANTILES = 101


@dataclass(frozen=True)
class StagePredictions:
    """A stage's out-of-fold predictions: probabilities (n, classes), in-domain scores (n,)."""

    probabilities: NDArray[np.float64]
    in_domain: NDArray[np.float64]


def fit_pool_weights(
    logits: Sequence[NDArray[np.float64]], labels: Labels, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Non-negative weights, (opinions,), of a logarithmic opinion pool that maximize the labels' likelihood.

    For a single opinion this is temperature scaling. Labels are smoothed (Platt, 1999), so that few queries,
    all classified correctly, do not give unbounded confidence.

    Args:
        logits: of each opinion, (n, classes).
        labels: class indices, (n,).
        weights: sample weights, (n,); by default all alike.
    """
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    stacked = np.stack(logits)  # (opinions, n, classes)
    count, classes = stacked.shape[1:]
    targets = np.full((count, classes), 1 / (count + 2) / (classes - 1))
    targets[np.arange(count), labels] = 1 - 1 / (count + 2)
    shares = np.full(count, 1 / count) if weights is None else weights / weights.sum()

    def loss_and_gradient(pool: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        probabilities = softmax(np.tensordot(pool, stacked, 1))
        loss = float(-shares @ (targets * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1))
        gradient: NDArray[np.float64] = (stacked * (probabilities - targets)).sum(axis=2) @ shares
        return loss, gradient

    start = np.full(len(stacked), 1 / (len(stacked) * max(float(stacked.std()), 1e-6)))
    bounds = [(0.0, 50.0)] * len(stacked)
    fitted: NDArray[np.float64] = minimize(
        loss_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds
    ).x
    return fitted


def fit_stage(
    logits: Sequence[NDArray[np.float64]],
    nearest: NDArray[np.float64],
    labels: Labels,
    classes: Sequence[str],
    prototypes: tuple[NDArray[np.float32], Labels],
    weights: NDArray[np.float64] | None = None,
    natural: NDArray[np.bool_] | None = None,
) -> tuple[Stage, StagePredictions]:
    """A stage that never exits early, and its predictions for the queries.

    Args:
        logits: out-of-fold, of each head and of the prototypes' votes, (n, classes) each.
        nearest: out-of-fold similarity to the nearest expert's prototype, (n,).
        labels: class indices of the queries, (n,).
        prototypes: of all queries, and their labels.
        weights: sample weights of the queries, (n,); by default all alike.
        natural: the queries that say what an expert's query is like, (n,); by default all.
    """
    pool = fit_pool_weights(logits, labels, weights)
    probabilities = pool_probabilities(logits, pool)
    raw = raw_in_domain_scores(nearest, probabilities, classes)
    expert = expert_mask(classes)[labels]
    if natural is not None and (expert & natural).any():
        expert &= natural
    quantiles = np.quantile(raw[expert], np.linspace(0, 1, _QUANTILES))
    predictions = StagePredictions(probabilities, in_domain_scores(raw, quantiles))
    return Stage(pool, *prototypes, quantiles), predictions


def fit_exit_thresholds(
    early: StagePredictions,
    last: StagePredictions,
    min_in_domain: float,
    weights: NDArray[np.float64] | None = None,
) -> ExitThresholds:
    """Thresholds above which an early stage agrees with the last one on nearly all queries.

    Args:
        weights: sample weights of the queries, (n,); by default all alike.
    """
    weights = np.ones(len(early.in_domain)) if weights is None else weights
    same_domain = early.probabilities.argmax(axis=1) == last.probabilities.argmax(axis=1)
    in_domain = last.in_domain >= min_in_domain
    above = _agreement_threshold(early.in_domain, in_domain, weights, MIN_AGREEMENT_IN_DOMAIN)
    below = -_agreement_threshold(-early.in_domain, ~in_domain, weights, MIN_AGREEMENT_OOD)
    margin = _agreement_threshold(margins(early.probabilities), same_domain, weights, MIN_AGREEMENT_DOMAIN)
    return ExitThresholds(
        min_margin=margin,
        min_in_domain=max(above, min_in_domain),
        ood_below=max(0.0, min(below, min_in_domain)),
    )


def _agreement_threshold(
    scores: NDArray[np.float64],
    agrees: NDArray[np.bool_],
    weights: NDArray[np.float64],
    min_agreement: float,
) -> float:
    """The least score from which the share `min_agreement` agrees; above all scores if there is none."""
    order = np.argsort(-scores, kind="stable")
    enough = np.cumsum((weights * agrees)[order]) >= min_agreement * np.cumsum(weights[order])
    positions = np.flatnonzero(enough)
    if not len(positions):
        return float(np.nextafter(scores.max(), np.inf))
    return float(scores[order[positions[-1]]])
