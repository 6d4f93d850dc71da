"""From what heads say of queries they have not seen to a stage's numbers. Pure functions of arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.routing.model import Labels, Stage, Sure, belonging, experts, leads, pooled, score, softmax

AGREE_DOMAIN, AGREE_IN, AGREE_OUT = 0.985, 0.99, 0.95  # with the last stage, where an earlier one decides
_POINTS = 101


@dataclass(frozen=True)
class Judged:
    """What a stage says of queries that its heads had not seen: chances (n, classes), belonging (n,)."""

    chances: NDArray[np.float64]
    own: NDArray[np.float64]


def shares_of(logits: Sequence[NDArray[np.float64]], labels: Labels) -> NDArray[np.float64]:
    """What each opinion, logits (n, classes), should count so that `labels` (n,) are likeliest, (opinions,).

    None counts less than nothing; for one head it is the inverse of the temperature. A little of every label
    is given to the other classes, so that few queries, all of them right, do not make it sure of everything
    (Platt, 1999).
    """
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    stacked = np.stack(logits)  # (heads, n, classes)
    count, classes = stacked.shape[1:]
    wanted = np.full((count, classes), 1 / (count + 2) / (classes - 1))
    wanted[np.arange(count), labels] = 1 - 1 / (count + 2)

    def surprise(shares: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        chances = softmax(np.tensordot(shares, stacked, 1))
        slope: NDArray[np.float64] = (stacked * (chances - wanted)).sum(axis=(1, 2)) / count
        return float(-(wanted * np.log(np.maximum(chances, 1e-12))).sum() / count), slope

    start = np.full(len(stacked), 1 / (len(stacked) * max(float(stacked.std()), 1e-6)))
    found = minimize(surprise, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 50.0)] * len(stacked))
    shares: NDArray[np.float64] = found.x
    return shares


def stage_of(
    logits: Sequence[NDArray[np.float64]],
    near: NDArray[np.float64],
    labels: Labels,
    classes: Sequence[str],
    examples: tuple[NDArray[np.float32], Labels],
) -> tuple[Stage, Judged]:
    """A stage of these opinions, the last that of `examples`, never sure; and what it says of the queries.

    `near` (n,) are cosines to the nearest of experts' examples, as `router.routing.prototypes.unseen` gives
    them.
    """
    shares = shares_of(logits, labels)
    chances = pooled(logits, shares)
    scores = score(near, chances, classes)
    own = experts(classes)[labels]
    quantiles = np.quantile(scores[own], np.linspace(0, 1, _POINTS))
    return Stage(shares, *examples, quantiles), Judged(chances, belonging(scores, quantiles))


def sureness(early: Judged, last: Judged, limit: float) -> Sure:
    """Where an early stage says what the last one would have said of nearly all queries."""
    same = early.chances.argmax(axis=1) == last.chances.argmax(axis=1)
    inside = last.own >= limit
    lead = _least(leads(early.chances), same, AGREE_DOMAIN)
    above = _least(early.own, inside, AGREE_IN)
    below = -_least(-early.own, ~inside, AGREE_OUT)
    return Sure(lead, max(above, limit), max(0.0, min(below, limit)))


def _least(values: NDArray[np.float64], agrees: NDArray[np.bool_], share: float) -> float:
    """The least value above which at least `share` agree; more than all of them where none will do."""
    order = np.argsort(-values, kind="stable")
    kept = np.flatnonzero(np.cumsum(agrees[order]) >= share * np.arange(1, len(order) + 1))
    return float(values[order[kept[-1]]]) if len(kept) else float(np.nextafter(values.max(), np.inf))
