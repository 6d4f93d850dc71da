"""The cascade: cheap stages classify every text, expensive ones only what is still uncertain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import Embedder
from router.embedding.lazy import LazyEmbedder
from router.routing.model import (
    ExitThresholds,
    Router,
    expert_mask,
    in_domain_scores,
    margins,
    pool_probabilities,
    raw_in_domain_scores,
)
from router.routing.prototypes import cosine_similarities, knn_logits, nearest_similarity


@dataclass(frozen=True)
class RoutePrediction:
    """A router's prediction for one text.

    `probabilities`: of each of `classes`. `in_domain`: the share of experts' own questions that score lower.
    `distance`: 1 - cosine similarity to the nearest expert's question. `embedder`: of the stage that decided.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    in_domain: float
    distance: float
    embedder: str


class RoutePredictor(Protocol):
    """Predicts the domains of texts."""

    def predict(self, texts: Sequence[str]) -> list[RoutePrediction]:
        """One prediction for each text."""
        ...


class Cascade:
    """A router with the embedders that it was fitted on, in its order. Thread-safe."""

    def __init__(self, router: Router, embedders: Sequence[Embedder]) -> None:
        self.router = router
        self._embedders = list(embedders)
        self._expert_mask = expert_mask(router.classes)
        self._merge = _merge_matrix(router)

    @property
    def last_embedder(self) -> Embedder:
        """The embedder of the last stage."""
        return self._embedders[-1]

    def load(self) -> None:
        """Load what is loaded on first use, so that no query waits for it."""
        for embedder in self._embedders:
            if isinstance(embedder, LazyEmbedder):
                embedder.load()

    def predict(self, texts: Sequence[str]) -> list[RoutePrediction]:
        """One prediction for each text, by the first stage whose exit thresholds it meets."""
        predictions: dict[int, RoutePrediction] = {}
        logits: list[NDArray[np.float64]] = []
        remaining, heads_done = np.arange(len(texts)), 0
        for number, stage in enumerate(self.router.stages):
            for head in self.router.heads[heads_done : stage.head_count]:
                vectors = self._embedders[heads_done].embed([texts[row] for row in remaining.tolist()])
                logits.append(head.logits(vectors))
                heads_done += 1
            similarities = cosine_similarities(vectors, stage.prototypes)
            votes = knn_logits(similarities, stage.labels, len(self.router.classes))
            probabilities = pool_probabilities([*logits, votes], stage.pool_weights)
            nearest = nearest_similarity(similarities, self._expert_mask[stage.labels])
            raw = raw_in_domain_scores(nearest, probabilities, self.router.classes)
            in_domain = in_domain_scores(raw, stage.score_quantiles)
            last = number == len(self.router.stages) - 1
            exits = np.full(len(remaining), last)
            exits |= exits_early(probabilities, in_domain, stage.exit_thresholds)
            name = self.router.heads[heads_done - 1].embedder
            for row in np.flatnonzero(exits).tolist():
                predictions[int(remaining[row])] = RoutePrediction(
                    classes=self.router.domains,
                    probabilities=self._merge @ probabilities[row],
                    in_domain=float(in_domain[row]),
                    distance=float(1 - nearest[row]),
                    embedder=name,
                )
            remaining, logits = remaining[~exits], [each[~exits] for each in logits]
            if not len(remaining):
                break
        return [predictions[row] for row in range(len(texts))]


def exits_early(
    probabilities: NDArray[np.float64], in_domain: NDArray[np.float64], thresholds: ExitThresholds
) -> NDArray[np.bool_]:
    """Which texts need no further stage, (n,), from probabilities (n, classes) and in-domain scores (n,)."""
    certain = (in_domain >= thresholds.min_in_domain) & (margins(probabilities) >= thresholds.min_margin)
    return (in_domain < thresholds.ood_below) | certain


def _merge_matrix(router: Router) -> NDArray[np.float64]:
    """Ones where a class belongs to a domain, (domains, classes)."""
    names = [router.aliases.get(name, name) for name in router.classes]
    return np.array([[float(name == domain) for name in names] for domain in router.domains])
