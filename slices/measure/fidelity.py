"""How faithful a model is to a reference on held-out text: bits per byte, KL and its tail, same first choice.

One pass of the model gives all of it. KL(reference || model) is in nats a token, on the columns that both
have, where the reference's probabilities are made to sum to one; what it gave the other tokens is the lost
mass. The tokens of a document are no independent samples, so errors are over documents.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slices.errors import RunFailed
from slices.estimate import Estimate, Values, ratio
from slices.measure.expected import Expected, divergences
from slices.measure.heldout import Heldout
from slices.measure.reading import Passage, documents_of
from slices.measure.teachers import Progress, scored_chunks
from slices.runtime import Runtime


@dataclass(frozen=True)
class Spread:
    """Of a value at every token: its mean, the standard error over documents, how far its tail goes."""

    mean: float
    stderr: float
    median: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True)
class Likeness:
    """A model against a reference on the same tokens. `perplexity_ratio`: its over the reference's."""

    kl: Spread
    same_top1: Estimate
    lost_mass: Estimate
    perplexity_ratio: Estimate


@dataclass(frozen=True)
class Fidelity:
    """A model on a text. `bits` and `bytes` by document, shape (documents,)."""

    bits_per_byte: Estimate
    tokens: int
    bits: Values
    bytes: Values
    likeness: Likeness | None


def fidelity(
    name: str,
    runtime: Runtime,
    text: Heldout,
    passages: Sequence[Passage],
    reference: Expected | None = None,
    progress: Progress | None = None,
) -> Fidelity:
    """Run `runtime` over the windows of `text` that it reads as `passages`.

    Args:
        reference: what a reference expects at the same positions, on the runtime's columns; None measures
            bits per byte alone.

    Raises:
        RunFailed: the runtime gives no finite probability; `name` is in the message.
    """
    found = _run(name, runtime, passages, reference, progress)
    rows = documents_of(text)
    every = np.repeat(rows, [each.scored for each in passages])
    count = int(rows.max()) + 1
    bits = _summed(-found.scored / math.log(2), every, count)
    sizes = _summed(np.array([window.nbytes for window in text.windows], np.float64), rows, count)
    likeness = None if reference is None else _likeness(name, found, reference, every)
    return Fidelity(ratio(bits, sizes), len(every), bits, sizes, likeness)


@dataclass(frozen=True)
class _Read:
    """At every position: log probabilities of what came and of the reference's tokens, the likeliest token,
    and what is given to columns without a token."""

    scored: Values
    given: NDArray[np.float32]
    top: NDArray[np.int64]
    wasted: NDArray[np.float32]


def _run(
    name: str,
    runtime: Runtime,
    passages: Sequence[Passage],
    reference: Expected | None,
    progress: Progress | None,
) -> _Read:
    positions = sum(each.scored for each in passages)
    columns = 0 if reference is None else reference.ids.shape[1]
    found = _Read(
        np.empty(positions),
        np.empty((positions, columns), np.float32),
        np.empty(positions, np.int64),
        np.zeros(positions, np.float32),
    )
    at = 0
    for came, rows in scored_chunks(name, runtime, passages, progress):
        here = slice(at, at + len(rows))
        found.scored[here] = rows[np.arange(len(rows)), came]
        if reference is not None:
            wanted = reference.ids[here].astype(np.int64)
            found.given[here] = np.take_along_axis(rows, wanted, axis=1)
            found.top[here] = rows.argmax(axis=1)
            found.wasted[here] = np.exp(rows[:, reference.void]).sum(axis=1)
        at += len(rows)
    return found


def _likeness(name: str, found: _Read, reference: Expected, every: NDArray[np.int64]) -> Likeness:
    kl = divergences(reference, found.given, found.wasted)
    if not np.isfinite(kl).all():
        raise RunFailed(f"{name} calls a token impossible that the reference does not")
    count = int(every.max()) + 1
    tokens = _summed(np.ones(len(kl)), every, count)

    def mean(values: NDArray[np.floating]) -> Estimate:
        return ratio(_summed(values, every, count), tokens)

    growth = mean(reference.scored - found.scored)
    factor = math.exp(min(growth.value, 700.0))
    return Likeness(
        _spread(kl, mean(kl)),
        mean((found.top == reference.top).astype(np.float64)),
        mean(reference.lost),
        Estimate(factor, factor * growth.stderr),
    )


def _spread(values: Values, mean: Estimate) -> Spread:
    median, p99, p999 = np.quantile(values, (0.5, 0.99, 0.999))
    return Spread(mean.value, mean.stderr, float(median), float(p99), float(p999), float(values.max()))


def _summed(values: NDArray[np.floating], rows: NDArray[np.int64], count: int) -> Values:
    """Sums of `values` by document."""
    return np.bincount(rows, weights=values, minlength=count).astype(np.float64)
