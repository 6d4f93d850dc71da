"""What a fit makes of labelled queries from several sources: cleaning, sample weights and fold groups.

Data sets teach the domains; how a user's query is worded they do not show. So natural wording, the domains'
example queries in English, has half of all weight; the weight of a form, another language or a data set grows
with the root of its size.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router.routing.model import GENERAL
from router.training.dataset import OOD, LabelledQuery
from router.training.example_queries import SOURCE

NATURAL_SHARE = 0.5  # of the weight, of natural wording where there are other sources too
SIZE_EXPONENT = 0.5  # of a data set's size in its weight
EXAM = "exam"  # the form of example queries worded as test questions
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Weighting:
    """How each of n queries counts in a fit.

    Attributes:
        weights: sample weights, mean 1, (n,).
        natural: worded as users word theirs, (n,): these say how likely an expert's query is.
        groups: queries of a group are in the same fold, (n,).
    """

    weights: NDArray[np.float64]
    natural: NDArray[np.bool_]
    groups: NDArray[np.int64]


def weigh(queries: Sequence[LabelledQuery]) -> Weighting:
    """The weighting of labelled queries."""
    return Weighting(
        weights=_sample_weights(queries),
        natural=np.array([is_natural(query) for query in queries]),
        groups=_fold_groups([query.text for query in queries]),
    )


def uniform(texts: Sequence[str]) -> Weighting:
    """The weighting of queries of which nothing is known."""
    count = len(texts)
    return Weighting(np.ones(count), np.ones(count, dtype=np.bool_), _fold_groups(texts))


def clean(queries: Sequence[LabelledQuery], classes: Collection[str] | None = None) -> list[LabelledQuery]:
    """The queries of `classes` (default: of all) without duplicates and without texts that have two labels.

    `ood` becomes `general`.
    """
    labels: dict[str, set[str]] = defaultdict(set)
    kept: dict[str, LabelledQuery] = {}
    for query in queries:
        domain = GENERAL if query.domain == OOD else query.domain
        if classes is None or domain in classes:
            labels[query.text].add(domain)
            kept.setdefault(query.text, _with_domain(query, domain))
    return [query for text, query in kept.items() if len(labels[text]) == 1]


def is_natural(query: LabelledQuery) -> bool:
    """Whether a query is worded as users word theirs, in English: an example query, or of no known source."""
    example = query.source in (None, SOURCE) and query.form != EXAM
    return example and query.language in (None, "en")


def _sample_weights(queries: Sequence[LabelledQuery]) -> NDArray[np.float64]:
    """The weight of each query, (n,), mean 1."""
    natural = np.array([is_natural(query) for query in queries])
    sizes = Counter(map(_group, queries))
    weights = np.array([sizes[_group(query)] ** (SIZE_EXPONENT - 1) for query in queries])
    if natural.any() and not natural.all():
        weights[natural] *= NATURAL_SHARE / weights[natural].sum()
        weights[~natural] *= (1 - NATURAL_SHARE) / weights[~natural].sum()
    normalized: NDArray[np.float64] = weights / weights.mean()
    return normalized


def _group(query: LabelledQuery) -> tuple[str | None, ...]:
    """What is weighted by its size: a form of natural wording, a language, or a data set."""
    if is_natural(query):
        return "natural", query.form
    return query.source, query.language


def _fold_groups(texts: Sequence[str]) -> NDArray[np.int64]:
    """A group for each query, (n,): near-duplicates, which have the same set of words, share one."""
    groups: dict[object, int] = {}
    keys = [frozenset(_WORD.findall(text.casefold())) or text for text in texts]
    return np.array([groups.setdefault(key, len(groups)) for key in keys], dtype=np.int64)


def _with_domain(query: LabelledQuery, domain: str) -> LabelledQuery:
    return query if query.domain == domain else replace(query, domain=domain)
