"""Fits a router on labelled queries: linear heads, prototypes, pool weights and thresholds.

Everything that is calibrated is calibrated out of fold. Nothing here reads or writes a file.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import REFERENCE_TEXT, Embedder
from router.embedding.finetuned import holdout_mask
from router.errors import BadTraining
from router.routing.model import GENERAL, Labels, LinearHead, Router, Stage, Thresholds, expert_mask
from router.routing.prototypes import build_prototypes, out_of_fold_votes
from router.training.augmentation import AugmentedText, Choices, augment
from router.training.calibration import StagePredictions, fit_exit_thresholds, fit_stage
from router.training.dataset import LabelledQuery
from router.training.linear_heads import (
    AugmentedSet,
    Folds,
    TrainingSet,
    fit_head,
    out_of_fold_logits,
    stratified_folds,
)
from router.training.weighting import Weighting, clean, uniform, weigh
from slices.errors import MissingExtra

MIN_HOLDOUT = 100  # queries that a fine-tuned encoder was not trained on, for calibration
ACCEPTANCE = 0.97  # share of experts' out-of-fold natural queries that are accepted as in-domain

Pairs = Sequence[tuple[str, str]]


def fit(
    queries: Pairs,
    embedders: Sequence[Embedder],
    acceptance: float = ACCEPTANCE,
    snippets: Pairs = (),
    choices: Choices = MappingProxyType({}),
    weighting: Weighting | None = None,
) -> Router:
    """Fit a router on `queries`, pairs of (text, domain). The class `general` means "no expert".

    Args:
        embedders: cheapest first; a decision can rest on those up to any one of dense vectors.
        acceptance: share of experts' own questions to accept as in-domain, 0 to 1.
        snippets: (text, domain) of other text, such as a domain's corpus: trains all heads but the last of
            several, and calibrates nothing.
        choices: answer choices of some of the queries, as augmentation.
        weighting: of the queries, which then have no duplicates; by default all count alike.

    Raises:
        BadTraining: fewer than two domains, a domain with fewer than two queries, or an empty query.
        MissingExtra: scikit-learn is not installed.
    """
    if find_spec("sklearn") is None:
        raise MissingExtra("scikit-learn", "route")
    queries = queries if weighting else list(dict.fromkeys(queries))
    weighting = weighting or uniform([text for text, _ in queries])
    _check(queries)
    classes = tuple(sorted({domain for _, domain in queries}))
    augmented = [AugmentedText(text, domain) for text, domain in snippets if domain in classes]
    augmented += augment(queries, choices)
    data = _training_sets(queries, embedders, classes, augmented, weighting.weights)
    folds = stratified_folds(data[0].labels, weighting.groups)
    logits = [out_of_fold_logits(each, folds, len(classes)) for each in data]
    thresholds = Thresholds(min_in_domain=1 - acceptance)
    return Router(
        classes=classes,
        heads=tuple(_head(embedder, each) for embedder, each in zip(embedders, data, strict=True)),
        stages=_stages(
            data=data,
            logits=logits,
            classes=classes,
            folds=folds,
            thresholds=thresholds,
            calibration=_calibration_mask(queries, embedders),
            weighting=weighting,
        ),
        thresholds=thresholds,
        queries_sha256=digest(queries),
    )


def fit_labelled(
    queries: Sequence[LabelledQuery],
    embedders: Sequence[Embedder],
    snippets: Pairs = (),
    choices: Choices = MappingProxyType({}),
    classes: Collection[str] | None = None,
) -> Router:
    """As `fit`, on queries of several sources: cleaned, and weighted by `router.training.weighting`.

    Args:
        classes: the domains to fit, default all; queries of others are left out.
    """
    kept = clean(queries, classes)
    return fit(
        [(query.text, query.domain) for query in kept],
        embedders,
        snippets=snippets,
        choices=choices,
        weighting=weigh(kept),
    )


def digest(queries: Iterable[tuple[str, str]]) -> str:
    """A fingerprint of labelled queries that ignores order and duplicates. Hex sha256."""
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


def _training_sets(
    queries: Pairs,
    embedders: Sequence[Embedder],
    classes: tuple[str, ...],
    augmented: Sequence[AugmentedText],
    weights: NDArray[np.float64],
) -> list[TrainingSet]:
    """The training data of each embedder's head; the last of several trains on queries only."""
    labels = _class_indices([domain for _, domain in queries], classes)
    sets = []
    for number, embedder in enumerate(embedders):
        vectors = embedder.embed([text for text, _ in queries])
        last_of_several = number == len(embedders) - 1 > 0
        extra = None if last_of_several else _augmented_set(augmented, embedder, classes)
        sets.append(TrainingSet(vectors, labels, extra, weights))
    return sets


def _augmented_set(
    augmented: Sequence[AugmentedText], embedder: Embedder, classes: tuple[str, ...]
) -> AugmentedSet:
    return AugmentedSet(
        vectors=embedder.embed([each.text for each in augmented]),
        labels=_class_indices([each.domain for each in augmented], classes),
        weights=np.array([each.weight for each in augmented], dtype=np.float64),
        sources=np.array([each.source for each in augmented], dtype=np.int64),
    )


def _calibration_mask(queries: Pairs, embedders: Sequence[Embedder]) -> NDArray[np.bool_]:
    """The queries to calibrate on, (n,): all, or those that a fine-tuned encoder was not trained on.

    All where these are too few (a small fit on an encoder that was tuned on more).
    """
    everything = np.ones(len(queries), dtype=np.bool_)
    if not any(embedder.finetuned for embedder in embedders):
        return everything
    heldout = holdout_mask(text for text, _ in queries)
    return heldout if heldout.sum() >= MIN_HOLDOUT else everything


def _class_indices(domains: Iterable[str], classes: tuple[str, ...]) -> Labels:
    return np.array([classes.index(domain) for domain in domains], dtype=np.int32)


def _head(embedder: Embedder, data: TrainingSet) -> LinearHead:
    weights, bias = fit_head(data)
    reference = np.asarray(embedder.embed([REFERENCE_TEXT]) @ weights.T + bias, dtype=np.float32)[0]
    return LinearHead(embedder=embedder.name, weights=weights, bias=bias, reference_logits=reference)


def _stages(
    data: Sequence[TrainingSet],
    logits: Sequence[NDArray[np.float64]],
    classes: tuple[str, ...],
    folds: Folds,
    thresholds: Thresholds,
    calibration: NDArray[np.bool_],
    weighting: Weighting,
) -> tuple[Stage, ...]:
    """The stages, calibrated on the masked queries; all but the last can exit."""
    fitted: list[tuple[Stage, StagePredictions]] = []
    for count in _head_counts(data):
        each = data[count - 1]
        nearest, votes, prototypes = _nearest(each, classes, folds)
        opinions = [opinion[calibration] for opinion in (*logits[:count], votes)]
        stage = fit_stage(
            logits=opinions,
            nearest=nearest[calibration],
            labels=each.labels[calibration],
            classes=classes,
            prototypes=prototypes,
            weights=weighting.weights[calibration],
            natural=weighting.natural[calibration],
        )
        fitted.append(stage)
    last_stage, last = fitted[-1]
    natural = weighting.natural if weighting.natural.any() else ~weighting.natural
    weights = np.where(natural, weighting.weights, 0.0)[calibration]
    exits = [fit_exit_thresholds(early, last, thresholds.min_in_domain, weights) for _, early in fitted[:-1]]
    early_stages = [
        replace(stage, exit_thresholds=each) for (stage, _), each in zip(fitted[:-1], exits, strict=True)
    ]
    return (*early_stages, last_stage)


def _head_counts(data: Sequence[TrainingSet]) -> list[int]:
    """The number of heads of each stage: up to each dense one, and the sparse before a single dense one."""
    dense = [number for number, each in enumerate(data, 1) if isinstance(each.vectors, np.ndarray)]
    if len(dense) == 1 < dense[0]:
        return [dense[0] - 1, dense[0]]
    return dense or [len(data)]


def _nearest(
    data: TrainingSet, classes: tuple[str, ...], folds: Folds
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[NDArray[np.float32], Labels]]:
    """Out-of-fold similarity to an expert's query and votes, and the prototypes; of sparse vectors none."""
    if not isinstance(data.vectors, np.ndarray):
        count = len(data.labels)
        nothing = np.zeros((0, data.vectors.shape[1]), np.float32), np.zeros(0, np.int32)
        return np.full(count, -1.0), np.zeros((count, len(classes))), nothing
    vectors, labels, weights = data.vectors, data.labels, data.weights
    nearest, votes = out_of_fold_votes(vectors, labels, expert_mask(classes), folds, weights)
    return nearest, votes, build_prototypes(vectors, labels, len(classes), weights)
