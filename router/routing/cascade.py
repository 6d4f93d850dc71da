"""Texts through a router's stages: the cheap ones read all of them, the dear ones what is still unsure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import Embedder
from router.routing.model import Router, Sure, belonging, experts, leads, pooled, score
from router.routing.prototypes import cosines, nearest, votes


@dataclass(frozen=True)
class Reading:
    """What a router makes of one text.

    `chances`: probability of each of `classes`. `belonging`: the share of experts' own questions that look
    less like one. `distance`: 1 - cosine to the nearest known question. `embedder`: the last that was asked.
    """

    classes: tuple[str, ...]
    chances: NDArray[np.float64]
    belonging: float
    distance: float
    embedder: str


class Reader(Protocol):
    """Reads texts for a router."""

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """One reading a text."""
        ...


class Cascade:
    """A router and the embedders that it was fitted on, in its order. Safe to share by threads."""

    def __init__(self, router: Router, embedders: Sequence[Embedder]) -> None:
        self.router = router
        self._embedders = list(embedders)
        self._own = experts(router.classes)

    @property
    def dearest(self) -> Embedder:
        """The last embedder, which is asked where the others are unsure."""
        return self._embedders[-1]

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """One reading a text, each by the first stage that is sure of it."""
        found: dict[int, Reading] = {}
        logits: list[NDArray[np.float64]] = []
        left, asked = np.arange(len(texts)), 0
        for number, stage in enumerate(self.router.stages):
            for head in self.router.heads[asked : stage.heads]:
                vectors = self._embedders[asked].embed([texts[at] for at in left.tolist()])
                logits.append(head.logits(vectors))
                asked += 1
            found_near = cosines(vectors, stage.prototypes)
            said = votes(found_near, stage.labels, len(self.router.classes))
            chances = pooled([*logits, said], stage.shares)
            near = nearest(found_near, self._own[stage.labels])
            own = belonging(score(near, chances, self.router.classes), stage.quantiles)
            last = number == len(self.router.stages) - 1
            done = np.ones(len(left), bool) if last else settled(chances, own, stage.sure)
            for row in np.flatnonzero(done).tolist():
                found[int(left[row])] = self._reading(chances[row], own[row], near[row], asked)
            left, logits = left[~done], [each[~done] for each in logits]
            if not len(left):
                break
        return [found[at] for at in range(len(texts))]

    def _reading(self, chances: NDArray[np.float64], own: float, near: float, asked: int) -> Reading:
        name = self.router.heads[asked - 1].embedder
        return Reading(self.router.classes, chances, float(own), float(1 - near), name)


def settled(chances: NDArray[np.float64], own: NDArray[np.float64], sure: Sure) -> NDArray[np.bool_]:
    """Which texts need no further stage, (n,)."""
    return (own < sure.below) | ((own >= sure.above) & (leads(chances) >= sure.lead))
