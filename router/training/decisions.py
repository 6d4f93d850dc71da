"""A router's decisions for many labelled queries, as if every domain had an expert. Nothing is generated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from router.routing.cascade import RoutePrediction, RoutePredictor
from router.routing.decide import decide
from router.routing.model import GENERAL, Router
from router.training.dataset import OOD, LabelledQuery

T = TypeVar("T")


@dataclass(frozen=True)
class RoutedQueries:
    """Labelled queries and what a router makes of them; all arrays are (n,).

    Attributes:
        labels: the queries' domains, `ood` among them.
        experts: the domain of the chosen expert, or `general` for the generalist.
        likeliest: the likeliest class, whether or not it was acted on.
        confidence: its probability.
        in_domain: in-domain scores.
        decided_by: the embedder of the stage that decided.
    """

    queries: tuple[LabelledQuery, ...]
    labels: NDArray[np.str_]
    experts: NDArray[np.str_]
    likeliest: NDArray[np.str_]
    confidence: NDArray[np.float64]
    in_domain: NDArray[np.float64]
    decided_by: NDArray[np.str_]

    def __len__(self) -> int:
        """The number of queries."""
        return len(self.queries)

    @property
    def has_expert(self) -> NDArray[np.bool_]:
        """Which labels are an expert's domain, (n,)."""
        return ~np.isin(self.labels, (GENERAL, OOD))

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which decisions are for the label's expert, or the generalist where the label has none, (n,)."""
        correct: NDArray[np.bool_] = self.experts == np.where(self.has_expert, self.labels, GENERAL)
        return correct

    def where(self, mask: NDArray[np.bool_]) -> "RoutedQueries":
        """The masked rows."""
        return RoutedQueries(
            queries=tuple(self.queries[row] for row in np.flatnonzero(mask)),
            labels=self.labels[mask],
            experts=self.experts[mask],
            likeliest=self.likeliest[mask],
            confidence=self.confidence[mask],
            in_domain=self.in_domain[mask],
            decided_by=self.decided_by[mask],
        )

    def by_group(
        self, group: Callable[[LabelledQuery], str | None], measure: Callable[["RoutedQueries"], T]
    ) -> dict[str, T]:
        """`measure` of the rows of each group, in order of name; rows of no group are left out."""
        names = np.array([group(query) or "" for query in self.queries])
        return {str(name): measure(self.where(names == name)) for name in np.unique(names) if name}


def route_queries(
    queries: Sequence[LabelledQuery], router: Router, predictor: RoutePredictor
) -> RoutedQueries:
    """The decisions of `router` for at least one query."""
    predictions = predictor.predict([query.text for query in queries])
    return RoutedQueries(
        queries=tuple(queries),
        labels=np.array([query.domain for query in queries]),
        experts=chosen_experts(predictions, router),
        likeliest=np.array([each.classes[int(each.probabilities.argmax())] for each in predictions]),
        confidence=np.array([float(each.probabilities.max()) for each in predictions]),
        in_domain=np.array([each.in_domain for each in predictions]),
        decided_by=np.array([each.embedder for each in predictions]),
    )


def route_texts(texts: Sequence[str], router: Router, predictor: RoutePredictor) -> NDArray[np.str_]:
    """The expert of each text, (n,): a domain, or `general` for the generalist."""
    return chosen_experts(predictor.predict(texts), router)


def of_known_domains(queries: Sequence[LabelledQuery], router: Router) -> list[LabelledQuery]:
    """The queries of a domain that the router knows, and the out-of-domain ones."""
    return [query for query in queries if query.domain in (*router.domains, OOD)]


def chosen_experts(predictions: Sequence[RoutePrediction], router: Router) -> NDArray[np.str_]:
    """The expert of each prediction, (n,): a domain, or `general` for the generalist."""
    experts = {name: name for name in router.domains}
    return np.array([decide(each, router.thresholds, experts, GENERAL).expert for each in predictions])
