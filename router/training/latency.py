"""Latency of single routing decisions."""

import time
from collections.abc import Sequence

import numpy as np

from router.routing.cascade import RoutePredictor
from router.routing.model import Router
from router.training.decisions import route_texts

TIMED_QUERIES = 100  # one by one


def decision_latency(texts: Sequence[str], router: Router, predictor: RoutePredictor) -> dict[str, float]:
    """Percentiles p50, p95 and p99 of the milliseconds of single decisions, on up to `TIMED_QUERIES` texts.

    Args:
        predictor: of the router; not cached.
    """
    milliseconds = []
    for text in texts[:TIMED_QUERIES]:
        start = time.perf_counter()
        route_texts([text], router, predictor)
        milliseconds.append(1000 * (time.perf_counter() - start))
    return {f"p{share}": float(np.percentile(milliseconds, share)) for share in (50, 95, 99)}
