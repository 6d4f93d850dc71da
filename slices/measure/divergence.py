"""How far a model is from a reference, token by token: KL, same top token, bits per byte, all with errors.

KL(reference || model) in nats, at every position of the windows that `slices.measure.score` scores, on the
reference's tokens; summed by document, since the tokens of one document are no independent samples. For a
slice with a part of its parent's vocabulary the parent's distribution is restricted to that part, and what
it gave the rest is the lost mass. The reference is kept by `slices.measure.reference`; nothing here decides.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slices.errors import RunFailed
from slices.estimate import Estimate, Values, ratio
from slices.measure.heldout import Heldout
from slices.measure.reference import Progress, Reference, chunks, kept
from slices.runtime import Runtime
from slices.runtimes.softmax import ROWS


@dataclass(frozen=True)
class Sums:
    """Sums by document, each of shape (documents,). Bits: of the text, under model and reference."""

    bytes: Values
    tokens: Values
    kl: Values
    same: Values
    lost: Values
    bits: Values
    reference_bits: Values


@dataclass(frozen=True)
class Divergence:
    """One model against one reference. `kl` in nats a token; `against` in bits a byte more than it.

    `perplexity_ratio` is the model's perplexity over the reference's on the same tokens. `lost_mass` is
    None where both have the same vocabulary.
    """

    name: str
    reference: str
    kl: Estimate
    kl_p99: float
    same_top1: Estimate
    bits_per_byte: Estimate
    reference_bits_per_byte: Estimate
    against: Estimate
    perplexity_ratio: Estimate
    lost_mass: Estimate | None
    tokens: int
    data: str  # sha256 of the windows
    sums: Sums


def measure(
    name: str, runtime: Runtime, reference: Reference, progress: Progress | None = None
) -> Divergence:
    """Hold `runtime` against what `reference` expects of its text.

    Raises:
        RunFailed: the vocabularies differ in size, or the model gives no finite probability to a token
            that the reference thinks possible. `name` is in the message.
    """
    _refuse_other_rows(name, runtime, reference)
    positions = len(reference.stored)
    kl, same, scored = np.empty(positions), np.empty(positions), np.empty(positions)
    for at, came, chunk in chunks(name, runtime, reference.windows, progress):
        rows = slice(at, at + len(chunk))
        scored[rows] = chunk[np.arange(len(chunk)), came]
        same[rows] = chunk.argmax(axis=1) == reference.top[rows]
        kl[rows] = divergences(reference.stored[rows], chunk)
    if not np.isfinite(kl).all():
        raise RunFailed(f"{name} calls a token impossible that {reference.name} does not")
    return _estimated(name, reference, _summed(reference, kl, same, scored), float(np.quantile(kl, 0.99)))


def against_parent(
    name: str,
    slice_runtime: Runtime,
    parent_runtime: Runtime,
    ids: NDArray[np.int64],
    text: Heldout,
    progress: Progress | None = None,
) -> Divergence:
    """Hold a slice with a part of the vocabulary against its parent, which reads the slice's tokens.

    To measure several files, or where both do not fit into memory, use `kept` and `measure` in its place.

    Args:
        ids: the parent's id of each of the slice's, shape (slice vocabulary,), by
            `slices.measure.token_map.token_map`.

    Raises:
        RunFailed: as `measure` and `kept`.
    """
    windows = [slice_runtime.encode(window.text) for window in text.windows]
    with kept("the parent", parent_runtime, text, windows, ids, progress=progress) as reference:
        return measure(name, slice_runtime, reference, progress)


def divergences(reference: NDArray[np.floating], model: NDArray[np.floating]) -> NDArray[np.float64]:
    """KL(reference || model) in nats of each row, shapes (positions, vocabulary); (positions,).

    The reference's rows are made to sum to one first, which float16 alone does not keep. Infinite where
    the model calls impossible what the reference does not.
    """
    found = np.empty(len(reference))
    for start in range(0, len(reference), ROWS):
        wanted = reference[start : start + ROWS].astype(np.float32)
        given = model[start : start + ROWS]
        share = np.exp(wanted)
        total = share.sum(axis=1, dtype=np.float64)
        gap = np.subtract(wanted, given, out=np.zeros_like(wanted), where=share > 0)
        found[start : start + ROWS] = (share * gap).sum(axis=1, dtype=np.float64) / total - np.log(total)
    return found


def _refuse_other_rows(name: str, runtime: Runtime, reference: Reference) -> None:
    columns = reference.stored.shape[1]
    (first,) = runtime.distributions((0, 0))  # ids that every vocabulary has
    if first.shape[1] != columns:
        raise RunFailed(
            f"{name} has {first.shape[1]:,} tokens, but {reference.name} was kept for {columns:,}; "
            "compare forms of the same slice"
        )


def _summed(reference: Reference, kl: Values, same: Values, scored: Values) -> Sums:
    """Sums over the positions of each document."""
    windows = reference.text.windows
    place = {number: row for row, number in enumerate(sorted({w.document for w in windows}))}
    row_of = np.array([place[window.document] for window in windows])

    def summed(values: Values, rows: NDArray[np.int64]) -> Values:
        return np.bincount(rows, weights=values, minlength=len(place)).astype(np.float64)

    every = np.repeat(row_of, [len(tokens) - 1 for tokens in reference.windows])
    lost = np.zeros(len(kl)) if reference.lost is None else reference.lost
    return Sums(
        bytes=summed(np.array([window.nbytes for window in windows], dtype=np.float64), row_of),
        tokens=summed(np.ones(len(kl)), every),
        kl=summed(kl, every),
        same=summed(same, every),
        lost=summed(lost, every),
        bits=summed(-scored / math.log(2), every),
        reference_bits=summed(-reference.scored / math.log(2), every),
    )


def _estimated(name: str, reference: Reference, sums: Sums, p99: float) -> Divergence:
    more = sums.bits - sums.reference_bits
    growth = ratio(more * math.log(2), sums.tokens)
    factor = math.exp(growth.value)
    return Divergence(
        name=name,
        reference=reference.name,
        kl=ratio(sums.kl, sums.tokens),
        kl_p99=p99,
        same_top1=ratio(sums.same, sums.tokens),
        bits_per_byte=ratio(sums.bits, sums.bytes),
        reference_bits_per_byte=ratio(sums.reference_bits, sums.bytes),
        against=ratio(more, sums.bytes),
        perplexity_ratio=Estimate(factor, factor * growth.stderr),
        lost_mass=None if reference.lost is None else ratio(sums.lost, sums.tokens),
        tokens=int(sums.tokens.sum()),
        data=reference.text.sha256,
        sums=sums,
    )
