"""Leave-one-group-out evaluation on small domains, with real fits."""

import pytest

from router.embedding.embedder import HashEmbedder
from router.errors import BadTraining
from router.routing.cascade import Cascade, RoutePredictor
from router.routing.model import Router
from router.training.dataset import LabelledQuery
from router.training.fit import fit
from router.training.leave_one_out import leave_one_out
from slices.progress import Progress
from tests.router.router_world import PAIRS

QUERIES = [LabelledQuery(text, domain, source=("a", "b")[at % 2]) for at, (text, domain) in enumerate(PAIRS)]


class Refit:
    """Fits on the hash embedder, and keeps what it was given."""

    def __init__(self, embedder: HashEmbedder) -> None:
        self.embedder = embedder
        self.training: list[list[LabelledQuery]] = []

    def __call__(self, queries: list[LabelledQuery]) -> tuple[Router, RoutePredictor]:
        self.training.append(queries)
        router = fit([(query.text, query.domain) for query in queries], [self.embedder])
        return router, Cascade(router, [self.embedder])


def source(query: LabelledQuery) -> str | None:
    return query.source


def progress_log() -> tuple[list[tuple[int, int]], Progress]:
    calls: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        calls.append((done, total))

    return calls, progress


def test_each_source_is_judged_by_a_router_that_never_saw_it(embedder: HashEmbedder) -> None:
    refit, (calls, progress) = Refit(embedder), progress_log()
    found = leave_one_out(QUERIES, source, refit, progress)
    assert list(found) == ["a", "b"]
    assert [{query.source for query in training} for training in refit.training] == [{"b"}, {"a"}]
    for each in found.values():
        assert each.routed is not None and each.forced is not None
        assert (each.routed.n, each.forced.n, each.training_queries, each.skipped) == (12, 12, 12, 0)
        assert each.forced.accuracy > 0.25  # four classes
    assert calls == [(0, 2), (1, 2), (2, 2)]


def test_texts_that_also_stand_in_the_held_out_source_are_not_trained_on(embedder: HashEmbedder) -> None:
    twice = LabelledQuery(PAIRS[0][0].upper() + " !", PAIRS[0][1], source="b")  # PAIRS[0] is in a
    refit, (_, progress) = Refit(embedder), progress_log()
    always = [LabelledQuery(PAIRS[2][0], PAIRS[2][1])]  # PAIRS[2] is in a
    leave_one_out([*QUERIES, twice], source, refit, progress, always)
    assert twice not in refit.training[0] and always[0] not in refit.training[0]
    assert QUERIES[0] not in refit.training[1] and always[0] in refit.training[1]


def test_out_of_domain_queries_train_the_class_general(embedder: HashEmbedder) -> None:
    ood = [LabelledQuery("zzzz qqqq", "ood", source="a"), LabelledQuery("xxxx", "ood", source="c")]
    refit, (_, progress) = Refit(embedder), progress_log()
    found = leave_one_out([*QUERIES, *ood], source, refit, progress)
    assert {query.domain for query in refit.training[1] if query.text == "zzzz qqqq"} == {"general"}
    only_ood = found["c"]
    assert only_ood.forced is None and only_ood.routed is not None and only_ood.routed.n == 1


def test_domains_of_one_source_only_are_skipped(embedder: HashEmbedder) -> None:
    music = [LabelledQuery(f"music {at}", "music", source="c") for at in range(3)]
    found = leave_one_out([*QUERIES, *music], source, Refit(embedder), progress_log()[1])
    assert (found["c"].routed, found["c"].forced, found["c"].skipped) == (None, None, 3)


def test_what_cannot_be_held_out_is_said(embedder: HashEmbedder) -> None:
    with pytest.raises(BadTraining, match="no query has a group"):
        leave_one_out(QUERIES, lambda query: query.form, Refit(embedder), progress_log()[1])
    with pytest.raises(BadTraining, match="without a: a router needs queries of two domains"):
        leave_one_out(QUERIES[::2], source, Refit(embedder), progress_log()[1])
