"""`mom route feedback`: adapt the router to corrected labels and ratings, and show what changes.

The text of the queries stays in their file; `store` appends the labelled ones to a file of their own.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mom.display import console
from router import settings
from router.embedding.embedder import Embedder
from router.embedding.stack import open_embedders
from router.errors import BadSettings
from router.routing import store as router_store
from router.routing.cascade import Cascade
from router.routing.model import GENERAL, Router
from router.serving import build
from router.settings import Settings, ThresholdOverrides, override_thresholds
from router.training.adapt import adapt
from router.training.dataset import LabelledQuery
from router.training.decision_changes import (
    DecisionChange,
    DecisionChanges,
    list_changes,
    summarize_changes,
)
from router.training.decisions import RoutedQueries, of_known_domains, route_queries, route_texts
from router.training.example_queries import read_example_queries
from router.training.feedback import Feedback, RejectedAnswer, read_feedback
from slices import home, manifest

QUERY_CHARS = 60  # of a query that is shown
MAX_EXAMPLES = 2000  # example queries on which routers are compared
STORED = Path("feedback", "queries.jsonl")  # in $MOM_HOME


@dataclass(frozen=True)
class RejectedAnswers:
    """Of n answers that were rated down: how many still go to the expert that gave them."""

    n: int
    before: int
    after: int


@dataclass(frozen=True)
class FeedbackResult:
    """What was learned from a file, and what changed.

    Attributes:
        path: of the adapted router; None where none was written.
        stored: of the file that the labelled queries were appended to; None where they were not stored.
        labelled: decisions on the queries that were learned from; None without any.
        changes: each of them that changed.
        rejected: the answers that were rated down, from which nothing is learned.
        unlabelled: lines without a label and a rating.
        examples: decisions on a sample of the domains' example queries.
    """

    path: Path | None
    stored: Path | None
    labelled: DecisionChanges | None
    changes: list[DecisionChange]
    rejected: RejectedAnswers
    unlabelled: int
    examples: DecisionChanges

    def as_json(self) -> dict[str, Any]:
        """With paths as strings and queries shortened."""
        changes = [asdict(change) | {"query": _shorten(change.query)} for change in self.changes]
        paths = {"path": self.path and str(self.path), "stored": self.stored and str(self.stored)}
        return asdict(self) | paths | {"changes": changes}


def give_feedback(
    file: Path, out: Path | None, config: Path | None, store: bool = False, dry_run: bool = False
) -> FeedbackResult:
    """Adapt the router of the settings to the feedback in `file` and write it to `out`.

    Args:
        out: folder, by default the one that the settings name as `router`.
        store: append the labelled queries, text included, to `$MOM_HOME/feedback/queries.jsonl`.
        dry_run: write nothing.

    Raises:
        BadSettings: there is no folder to write to, or domains were renamed or merged.
        BadTraining: the file cannot be read, or a line is malformed.
        BadRouter: there is no usable router.
    """
    loaded = settings.read(config)
    folder = out or loaded.router
    if folder is None and not dry_run:
        raise BadSettings(
            "an adapted router needs a folder of its own: give -o DIR, and `router: DIR` in serve.yaml"
        )
    fitted = loaded.model_copy(update={"thresholds": ThresholdOverrides()})  # keep those that are stored
    router = build.load_or_fit_router(fitted)
    if router.aliases:
        raise BadSettings(f"renamed domains cannot be adapted: {', '.join(router.aliases.values())}")
    feedback = read_feedback(file, _domains(router, loaded))
    embedders = open_embedders(loaded.embedder)
    adapted = adapt(router, embedders, feedback.labelled) if feedback.labelled else router
    before, after = (_Decider(each, embedders, loaded.thresholds) for each in (router, adapted))
    result = _compare(before, after, feedback, _example_queries(router))
    if folder is None or dry_run or not feedback.labelled:
        return result
    router_store.save(adapted, folder)
    return replace(result, path=folder, stored=_append(feedback.labelled) if store else None)


class _Decider:
    """A router's decisions, under the thresholds of the settings."""

    def __init__(self, router: Router, embedders: Sequence[Embedder], thresholds: ThresholdOverrides) -> None:
        self._router = override_thresholds(router, thresholds)
        self._cascade = Cascade(self._router, embedders)

    def of_queries(self, queries: Sequence[LabelledQuery]) -> RoutedQueries:
        return route_queries(queries, self._router, self._cascade)

    def count_sent_to(self, rejected: Sequence[RejectedAnswer]) -> int:
        """How many of the queries go to the expert of the domain that was rejected for them."""
        if not rejected:
            return 0
        experts = route_texts([each.text for each in rejected], self._router, self._cascade)
        return sum(each.domain == expert for each, expert in zip(rejected, experts.tolist(), strict=True))


def _compare(
    before: _Decider, after: _Decider, feedback: Feedback, examples: Sequence[LabelledQuery]
) -> FeedbackResult:
    labelled = feedback.labelled
    old, new = before.of_queries(labelled), after.of_queries(labelled)
    rejected = feedback.rejected
    return FeedbackResult(
        path=None,
        stored=None,
        labelled=summarize_changes(old, new) if labelled else None,
        changes=list_changes(old, new),
        rejected=RejectedAnswers(
            len(rejected), before.count_sent_to(rejected), after.count_sent_to(rejected)
        ),
        unlabelled=feedback.unlabelled,
        examples=summarize_changes(before.of_queries(examples), after.of_queries(examples)),
    )


def _domains(router: Router, loaded: Settings) -> dict[str, str]:
    """The domain of every name that feedback may use: the router's domains and the served experts."""
    domains = {name: name for name in (*router.classes, GENERAL)}
    if loaded.experts == "all" and not manifest.all_slices(loaded.slices):
        return domains
    served = build.served_catalogue(loaded)
    experts = {name: expert.domain for name, expert in served.experts.items()}
    return domains | experts | {served.generalist: GENERAL}


def _example_queries(router: Router) -> list[LabelledQuery]:
    """A sample of the example queries of the router's domains."""
    queries = of_known_domains(read_example_queries(), router)
    order = np.random.default_rng(0).permutation(len(queries))[:MAX_EXAMPLES]
    return [queries[index] for index in order.tolist()]


def _append(queries: Sequence[LabelledQuery]) -> Path:
    """Append the queries to `$MOM_HOME/feedback/queries.jsonl`, which only its owner can read."""
    path = home.home() / STORED
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = "".join(
        json.dumps({"query": query.text, "domain": query.domain, "source": query.source}) + "\n"
        for query in queries
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
        file.write(lines)
    return path


def show_feedback(result: FeedbackResult) -> None:
    """What was learned, each change, and whether other decisions stay."""
    rows = [[_shorten(each.query), each.label, f"{each.before} -> {each.after}"] for each in result.changes]
    if rows:
        console.print_table("changed decisions", ["query", "label", "expert"], rows)
    for line in _summary(result):
        console.out.print(line, markup=False, soft_wrap=True)


def _summary(result: FeedbackResult) -> list[str]:
    lines = []
    if result.labelled is not None:
        lines.append(f"labelled queries, from which it learned: {_changes(result.labelled)}")
    if result.rejected.n:
        before, after = result.rejected.before, result.rejected.after
        lines.append(f"rated down: {result.rejected.n}; to the same expert before {before}, now {after}")
    if result.unlabelled:
        lines.append(f"without a label and a rating: {result.unlabelled} lines")
    lines.append(f"example queries of the domains: {_changes(result.examples)}")
    if result.path is not None:
        lines.append(f"router -> {result.path}")
    elif result.labelled is None:
        lines.append("nothing to learn from, nothing written")
    else:
        lines.append("nothing written")
    if result.stored is not None:
        lines.append(f"queries -> {result.stored}")
    return lines


def _changes(each: DecisionChanges) -> str:
    right = f"right before {each.right_before:.1%}, now {each.right_after:.1%}"
    return f"{each.changed} of {each.n} decided differently; {right}"


def _shorten(text: str) -> str:
    """The text on one line, cut to `QUERY_CHARS` characters."""
    line = " ".join(text.split())
    return line if len(line) <= QUERY_CHARS else line[: QUERY_CHARS - 1] + "…"
