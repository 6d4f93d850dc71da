"""Robustness of routed decisions to typos, case, truncation and small talk."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router.routing.cascade import RoutePredictor
from router.routing.model import Router
from router.training.decisions import route_texts
from router.training.perturbations import PERTURBATIONS

PERTURBED_QUERIES = 2000  # of each kind


def robustness(
    texts: Sequence[str], experts: NDArray[np.str_], router: Router, predictor: RoutePredictor, seed: int = 0
) -> dict[str, float]:
    """By perturbation, the share of a sample of texts whose expert stays the same.

    Args:
        experts: the expert of each text as it is, (n,).
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(texts))[:PERTURBED_QUERIES]
    shares = {}
    for name, perturb in PERTURBATIONS.items():
        perturbed = [perturb(texts[index], rng) for index in chosen]
        shares[name] = float((route_texts(perturbed, router, predictor) == experts[chosen]).mean())
    return shares
