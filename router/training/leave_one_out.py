"""Leave-one-group-out evaluation: how a router does on a data set or a form that it was not fitted on.

Each group of queries is held out once: a router is fitted on the others, without the texts that also stand in
the group, and evaluated on the group. Nothing is tuned on the result.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from router.errors import BadTraining
from router.routing.cascade import RoutePredictor
from router.routing.model import GENERAL, Router
from router.training.dataset import OOD, LabelledQuery, normalize
from router.training.decisions import of_known_domains, route_queries
from router.training.route_accuracy import ForcedAccuracy, RoutedAccuracy, forced_accuracy, routed_accuracy
from slices.progress import Progress

Group = Callable[[LabelledQuery], str | None]
Refit = Callable[[list[LabelledQuery]], tuple[Router, RoutePredictor]]


@dataclass(frozen=True)
class HeldOutAccuracy:
    """Accuracy on a group that was held out.

    Attributes:
        routed: of the routed decisions; None where the group's domains are in no other group.
        forced: of the likeliest class; None without rows that are not `ood`.
        training_queries: that the router was fitted on.
        skipped: rows of domains that no other group has.
    """

    routed: RoutedAccuracy | None
    forced: ForcedAccuracy | None
    training_queries: int
    skipped: int


def leave_one_out(
    queries: Sequence[LabelledQuery],
    group: Group,
    refit: Refit,
    progress: Progress,
    always: Sequence[LabelledQuery] = (),
) -> dict[str, HeldOutAccuracy]:
    """The accuracy on each group of `queries` of a router that was fitted on the rest, by name of the group.

    Args:
        group: a query's group; queries of None are never held out.
        refit: fits a router; called once a group.
        always: further training queries, of no group.

    Raises:
        BadTraining: no query has a group, or the rest cannot train a router; the group is named.
    """
    names = sorted({name for query in queries if (name := group(query))})
    if not names:
        raise BadTraining("no query has a group to hold out")
    found = {}
    for number, name in enumerate(names):
        progress("leave one out", number, len(names))
        heldout = [query for query in queries if group(query) == name]
        rest = [query for query in queries if group(query) != name]
        training = list(_without_texts([*always, *rest], heldout))
        try:
            router, predictor = refit(training)
        except BadTraining as error:
            raise BadTraining(f"without {name}: {error}") from None
        found[name] = _accuracy(heldout, router, predictor, len(training))
    progress("leave one out", len(names), len(names))
    return found


def _without_texts(
    queries: Sequence[LabelledQuery], heldout: Sequence[LabelledQuery]
) -> Iterator[LabelledQuery]:
    """Training queries whose text is not among the held-out ones; out-of-domain ones as `general`."""
    excluded = {normalize(query.text) for query in heldout}
    for query in queries:
        if normalize(query.text) not in excluded:
            yield replace(query, domain=GENERAL) if query.domain == OOD else query


def _accuracy(
    heldout: Sequence[LabelledQuery], router: Router, predictor: RoutePredictor, training_queries: int
) -> HeldOutAccuracy:
    known = of_known_domains(heldout, router)
    if not known:
        return HeldOutAccuracy(None, None, training_queries, len(heldout))
    routed = route_queries(known, router, predictor)
    labelled = routed.where(routed.labels != OOD)
    return HeldOutAccuracy(
        routed=routed_accuracy(routed),
        forced=forced_accuracy(labelled) if len(labelled) else None,
        training_queries=training_queries,
        skipped=len(heldout) - len(known),
    )
