"""Which FFN neurons stay: as many in every layer, the highest-scoring ones, in the parent's order.

Scores come from `slices.scores.neurons`. Random ranks exist to measure against, where they are asked for.
"""

from collections.abc import Sequence

import numpy as np

from slices.architecture.anatomy import Anatomy
from slices.cut.plan import Neurons
from slices.errors import IllegalCut
from slices.scores.neurons import Scores


def choose_neurons(
    anatomy: Anatomy, layers: Sequence[int], width: int | None, rank: str, seed: int, scores: Scores | None
) -> Neurons | None:
    """The neurons that stay, None for all.

    Args:
        width: neurons a layer, before double-wide layers double it.
        rank: "scores" or "random".
        scores: None plans the first neurons, where only the size of the result matters.

    Raises:
        IllegalCut: `rank` is neither.
    """
    if rank not in ("scores", "random"):
        raise IllegalCut(f"--ffn-rank {rank}: expected scores or random")
    if width is None:
        return None
    if rank == "random":
        return random_neurons(anatomy, layers, width, seed)
    return (
        first_neurons(anatomy, layers, width)
        if scores is None
        else best_neurons(anatomy, layers, width, scores)
    )


def best_neurons(anatomy: Anatomy, layers: Sequence[int], width: int, scores: Scores) -> Neurons:
    """The `width` neurons of each layer with the highest scores; of equal ones, the first.

    A double-wide layer keeps twice as many.

    Returns:
        For each of `layers` ascending indices, shape (kept,).
    """
    kept = {i: _width(anatomy, i, width) for i in layers}
    return {i: np.sort(np.argsort(-scores[i], kind="stable")[: kept[i]]).astype(np.int64) for i in layers}


def random_neurons(anatomy: Anatomy, layers: Sequence[int], width: int, seed: int) -> Neurons:
    """As many neurons drawn at random: what a score must beat."""
    random = np.random.default_rng(seed)
    scores = {i: random.random(layer.ffn, dtype=np.float32) for i, layer in enumerate(anatomy.layers)}
    return best_neurons(anatomy, layers, width, scores)


def first_neurons(anatomy: Anatomy, layers: Sequence[int], width: int) -> Neurons:
    """As many neurons, by number: a stand-in where only the size of the result is asked for."""
    return {i: np.arange(_width(anatomy, i, width), dtype=np.int64) for i in layers}


def _width(anatomy: Anatomy, layer: int, width: int) -> int:
    return width * anatomy.layers[layer].ffn // int(anatomy.config["intermediate_size"])
