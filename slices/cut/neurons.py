"""Which FFN neurons are kept: as many in every layer, the highest-scoring ones, in the parent's order.

Scores come from `slices.scores.neurons`. Random ranks are the baseline that a score must beat.
"""

from collections.abc import Sequence

import numpy as np

from slices.architecture.anatomy import Anatomy
from slices.cut.plan import NeuronIndices
from slices.cut.request import FfnRank
from slices.scores.neurons import NeuronScores


def choose_neurons(
    anatomy: Anatomy,
    layers: Sequence[int],
    width: int | None,
    rank: FfnRank,
    seed: int,
    scores: NeuronScores | None,
) -> NeuronIndices | None:
    """The neurons to keep, None for all.

    Args:
        width: neurons a layer, before double-wide layers double it; None keeps all.
        seed: of random ranks.
        scores: None plans the first neurons, where only the size of the result matters.
    """
    if width is None:
        return None
    if rank == FfnRank.RANDOM:
        return random_neurons(anatomy, layers, width, seed)
    if scores is None:
        return first_neurons(anatomy, layers, width)
    return best_neurons(anatomy, layers, width, scores)


def best_neurons(anatomy: Anatomy, layers: Sequence[int], width: int, scores: NeuronScores) -> NeuronIndices:
    """The `width` neurons of each layer with the highest scores; of equal ones, the first.

    A double-wide layer keeps twice as many.

    Returns:
        For each of `layers` ascending indices, shape (kept,).
    """
    kept = {i: _width(anatomy, i, width) for i in layers}
    return {i: np.sort(np.argsort(-scores[i], kind="stable")[: kept[i]]).astype(np.int64) for i in layers}


def random_neurons(anatomy: Anatomy, layers: Sequence[int], width: int, seed: int) -> NeuronIndices:
    """As many neurons drawn at random: the baseline for a score."""
    random = np.random.default_rng(seed)
    scores = {i: random.random(layer.ffn, dtype=np.float32) for i, layer in enumerate(anatomy.layers)}
    return best_neurons(anatomy, layers, width, scores)


def first_neurons(anatomy: Anatomy, layers: Sequence[int], width: int) -> NeuronIndices:
    """The first neurons of each layer: a placeholder where only the size of the result matters."""
    return {i: np.arange(_width(anatomy, i, width), dtype=np.int64) for i in layers}


def _width(anatomy: Anatomy, layer: int, width: int) -> int:
    return width * anatomy.layers[layer].ffn // int(anatomy.config["intermediate_size"])
