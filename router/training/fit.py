"""Labelled queries to a fitted router: linear heads and prototypes, pooled, and how far is too far.

Everything that sets a limit is measured out of fold, on queries the heads had not seen. Nothing here
reads or writes a file.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import REFERENCE_TEXT, Embedder
from router.embedding.finetuned import holdout_mask
from router.errors import BadTraining
from router.routing.model import GENERAL, Head, Labels, Router, Stage, Thresholds, experts
from router.routing.prototypes import prototypes_of, unseen
from router.training.augmentation import Answers, Hint, hints_of
from router.training.calibration import Judged, stage_of, sureness
from router.training.linear_heads import Hinted, Taught, learn, split, unseen_logits
from slices.errors import MissingExtra

ENOUGH = 100  # queries that a tuned encoder has not seen, to measure limits on
ACCEPT = 0.95  # share of unseen questions of experts' domains that pass as such

Pairs = Sequence[tuple[str, str]]


def fit(
    queries: Pairs,
    embedders: Sequence[Embedder],
    accept: float = ACCEPT,
    hints: Pairs = (),
    answers: Answers = MappingProxyType({}),
) -> Router:
    """Fit a router on `queries`, pairs of (text, domain). The class `general` means "no expert".

    Args:
        embedders: from cheap to dear; a decision may rest on those up to any one whose vectors are dense.
        accept: share of experts' own questions that are to be let through, 0 to 1.
        hints: texts of the same domains that are no queries, such as pieces of its corpus: all heads but the
            last of several learn from them, and nothing is measured on them.
        answers: what may be answered to some of the queries, where choices go with it. They make hints too.

    Raises:
        BadTraining: fewer than two domains, a domain with fewer than two queries, or an empty query.
        MissingExtra: scikit-learn is not installed.
    """
    if find_spec("sklearn") is None:
        raise MissingExtra("scikit-learn", "route")
    queries = list(dict.fromkeys(queries))
    _check(queries)
    classes = tuple(sorted({domain for _, domain in queries}))
    others = [Hint(text, domain) for text, domain in hints if domain in classes]
    lessons = _lessons(queries, embedders, classes, [*others, *hints_of(queries, answers)])
    folds = split(lessons[0].labels)
    logits = [unseen_logits(taught, folds, len(classes)) for taught in lessons]
    limits = Thresholds(belonging=1 - accept)
    told = _told_by(queries, embedders)
    return Router(
        classes=classes,
        heads=tuple(_head(each, taught) for each, taught in zip(embedders, lessons, strict=True)),
        stages=_stages(lessons, logits, classes, folds, limits, told),
        thresholds=limits,
        queries_sha256=digest(queries),
    )


def digest(queries: Iterable[tuple[str, str]]) -> str:
    """A fingerprint of labelled queries that ignores their order and repeats. Hex sha256."""
    lines = sorted({f"{domain}\x00{text}" for text, domain in queries})
    return hashlib.sha256("\x01".join(lines).encode("utf-8", "replace")).hexdigest()


def _check(queries: Pairs) -> None:
    counts = Counter(domain for _, domain in queries)
    if len(counts) < 2:
        raise BadTraining(f"a router needs queries of two domains or more, got {sorted(counts)}")
    if scarce := sorted(domain for domain, count in counts.items() if count < 2):
        raise BadTraining(f"these domains have fewer than two different queries: {', '.join(scarce)}")
    if set(counts) == {GENERAL}:
        raise BadTraining("a router needs a domain besides 'general'")
    if empty := sorted({domain for text, domain in queries if not text.strip()}):
        raise BadTraining(f"an empty query in {', '.join(empty)}")


def _lessons(
    queries: Pairs, embedders: Sequence[Embedder], classes: tuple[str, ...], hints: Sequence[Hint]
) -> list[Taught]:
    """What each embedder's head learns from."""
    labels, found = _numbers([domain for _, domain in queries], classes), []
    for number, embedder in enumerate(embedders):
        vectors = embedder.embed([text for text, _ in queries])
        alone = number == len(embedders) - 1 > 0
        found.append(Taught(vectors, labels, None if alone else _hinted(hints, embedder, classes)))
    return found


def _hinted(hints: Sequence[Hint], embedder: Embedder, classes: tuple[str, ...]) -> Hinted:
    return Hinted(
        embedder.embed([hint.text for hint in hints]),
        _numbers([hint.domain for hint in hints], classes),
        np.array([hint.counts for hint in hints], dtype=np.float64),
        np.array([hint.of for hint in hints], dtype=np.int64),
    )


def _told_by(queries: Pairs, embedders: Sequence[Embedder]) -> NDArray[np.bool_]:
    """The queries that limits are measured on, (n,): all, or those that a tuned encoder has not learned.

    Where these are too few to tell (a small fit on an encoder tuned on more), all.
    """
    everyone = np.ones(len(queries), dtype=np.bool_)
    if not any(each.finetuned for each in embedders):
        return everyone
    back = holdout_mask(text for text, _ in queries)
    return back if back.sum() >= ENOUGH else everyone


def _numbers(domains: Iterable[str], classes: tuple[str, ...]) -> Labels:
    return np.array([classes.index(domain) for domain in domains], dtype=np.int32)


def _head(embedder: Embedder, taught: Taught) -> Head:
    weights, bias = learn(taught)
    probe = np.asarray(embedder.embed([REFERENCE_TEXT]) @ weights.T + bias, dtype=np.float32)[0]
    return Head(embedder.name, weights, bias, probe)


def _stages(
    lessons: Sequence[Taught],
    logits: Sequence[NDArray[np.float64]],
    classes: tuple[str, ...],
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    limits: Thresholds,
    told: NDArray[np.bool_],
) -> tuple[Stage, ...]:
    """A stage after every head of dense vectors, by what `told` queries say; each but the last knows when it
    is sure."""
    found: list[tuple[Stage, Judged]] = []
    for number, taught in enumerate(lessons, 1):
        if isinstance(taught.vectors, np.ndarray):
            near, said = unseen(taught.vectors, taught.labels, experts(classes), folds)
            examples = prototypes_of(taught.vectors, taught.labels, len(classes))
            said_of = [each[told] for each in (*logits[:number], said)]
            found.append(stage_of(said_of, near[told], taught.labels[told], classes, examples))
    last = found[-1][1]
    early = (replace(stage, sure=sureness(judged, last, limits.belonging)) for stage, judged in found[:-1])
    return (*early, found[-1][0])
