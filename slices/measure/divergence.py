"""KL divergence of a model from a reference on held-out text, with bits per byte and standard errors.

KL(reference || model) is in nats a token, over the model's vocabulary. Where the reference has more tokens
there are two: to its distribution restricted to that vocabulary, which does not see the cut, and to the one
in which each lost token's probability is at its first piece. What it gave to lost tokens is the lost mass.
Errors are over documents, since the tokens of one document are no independent samples. Every caller measures
here.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slices.errors import RunFailed
from slices.estimate import Estimate, Values, ratio
from slices.measure.bits_per_byte import DocumentTotals, TextScore, to_bits
from slices.measure.heldout import Heldout
from slices.measure.log_probs import scored_log_probs
from slices.measure.reference import Reference, compute_reference
from slices.measure.sampled_distribution import SampledDistribution, sampled_kl
from slices.measure.token_map import TokenMap
from slices.measure.tokenized import tokenize_windows
from slices.progress import Progress
from slices.runtime import Runtime

_MAX_EXPONENT = 700.0  # of a float64


@dataclass(frozen=True)
class DocumentSums:
    """Sums by document, each of shape (documents,). Bits: of the text, under model and reference."""

    bytes: Values
    tokens: Values
    kl: Values
    kl_first_piece: Values
    same: Values
    lost: Values
    bits: Values
    reference_bits: Values


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of a value over all tokens."""

    median: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True)
class Divergence:
    """One model against one reference. `kl` in nats a token; `against` in bits a byte more than it.

    `kl_first_piece` counts lost tokens at their first piece; it is `kl` where there are none, and never None.
    `perplexity_ratio` is the model's perplexity over the reference's on the same tokens. `lost_mass` is
    None where both have the same vocabulary. `kl_sampled_tokens`: how many tokens a position the KL of the
    tail was estimated from, 0 where it is exact.
    """

    name: str
    reference: str
    kl: Estimate
    kl_first_piece: Estimate
    kl_quantiles: Quantiles
    kl_sampled_tokens: int
    same_top1: Estimate
    bits_per_byte: Estimate
    reference_bits_per_byte: Estimate
    against: Estimate
    perplexity_ratio: Estimate
    lost_mass: Estimate | None
    tokens: int
    data: str  # sha256 of the windows
    sums: DocumentSums

    @property
    def score(self) -> TextScore:
        """The model's bits per byte, with sums by document."""
        return TextScore(
            bits_per_byte=self.bits_per_byte, tokens=self.tokens, bits=self.sums.bits, bytes=self.sums.bytes
        )


def measure_divergence(
    name: str, runtime: Runtime, reference: Reference, progress: Progress | None = None
) -> Divergence:
    """Run a model on the reference's text, and compare the two at every scored position.

    Raises:
        RunFailed: the vocabularies differ in size, or the model gives no finite probability to a token
            that the reference thinks possible. `name` is in the message.
    """
    _check_vocabulary(name, runtime, reference)
    outputs = _run(name, runtime, reference, progress)
    kl = sampled_kl(reference.distribution, outputs.log_probs, outputs.unused_mass)
    first_piece = kl
    if reference.first_piece is not None and outputs.first_piece is not None:
        first_piece = sampled_kl(reference.first_piece, outputs.first_piece, outputs.unused_mass)
    if not (np.isfinite(kl).all() and np.isfinite(first_piece).all()):
        raise RunFailed(f"{name} calls a token impossible that {reference.name} does not")
    return _summarize(name, reference, kl, first_piece, outputs)


def measure_against(
    name: str,
    runtime: Runtime,
    reference_runtime: Runtime,
    token_map: TokenMap | None,
    text: Heldout,
    progress: Progress | None = None,
) -> Divergence:
    """Compare two loaded models. For several models, or where both do not fit into memory, call
    `compute_reference` and `measure_divergence` one after the other.

    Args:
        token_map: which of the reference's tokens the model's are; None where both have the same.

    Raises:
        RunFailed: as `compute_reference` and `measure_divergence`.
    """
    windows = tokenize_windows(name, runtime, text)
    reference = compute_reference("the parent", reference_runtime, text, windows, token_map, progress)
    return measure_divergence(name, runtime, reference, progress)


@dataclass(frozen=True)
class _Outputs:
    """A model at every scored position: log probabilities of the text's tokens and of the reference's
    `token_ids` in either distribution, the likeliest token, and the mass of unused columns."""

    target_log_probs: Values
    log_probs: NDArray[np.float32]
    first_piece: NDArray[np.float32] | None
    top1: NDArray[np.int64]
    unused_mass: NDArray[np.float32]


def _check_vocabulary(name: str, runtime: Runtime, reference: Reference) -> None:
    (first,) = runtime.distributions((0, 0))  # ids that every vocabulary has
    if first.shape[1] != reference.vocabulary:
        raise RunFailed(
            f"{name} has {first.shape[1]:,} tokens, but {reference.name} was run for "
            f"{reference.vocabulary:,}; compare forms of the same slice"
        )


def _run(name: str, runtime: Runtime, reference: Reference, progress: Progress | None) -> _Outputs:
    sampled, spelled = reference.distribution, reference.first_piece
    positions, columns = sampled.token_ids.shape
    outputs = _Outputs(
        target_log_probs=np.empty(positions),
        log_probs=np.empty((positions, columns), np.float32),
        first_piece=None if spelled is None else np.empty((positions, columns), np.float32),
        top1=np.empty(positions, np.int64),
        unused_mass=np.zeros(positions, np.float32),
    )
    start = 0
    for target_ids, log_probs in scored_log_probs(name, runtime, reference.windows, progress):
        rows = slice(start, start + len(log_probs))
        outputs.target_log_probs[rows] = log_probs[np.arange(len(log_probs)), target_ids]
        outputs.log_probs[rows] = _pick(log_probs, sampled, rows)
        if spelled is not None and outputs.first_piece is not None:
            outputs.first_piece[rows] = _pick(log_probs, spelled, rows)
        outputs.top1[rows] = log_probs.argmax(axis=1)
        outputs.unused_mass[rows] = np.exp(log_probs[:, sampled.unused_columns]).sum(axis=1)
        start += len(log_probs)
    return outputs


def _pick(log_probs: NDArray[np.float32], sampled: SampledDistribution, rows: slice) -> NDArray[np.float32]:
    """The log probabilities (positions, vocabulary) of the sampled tokens at these positions."""
    return np.take_along_axis(log_probs, sampled.token_ids[rows].astype(np.int64), axis=1)


def _summarize(
    name: str, reference: Reference, kl: Values, first_piece: Values, outputs: _Outputs
) -> Divergence:
    sampled, documents = reference.distribution, DocumentTotals(reference.text, reference.windows)
    sums = DocumentSums(
        bytes=documents.bytes,
        tokens=documents.sums(np.ones(len(kl))),
        kl=documents.sums(kl),
        kl_first_piece=documents.sums(first_piece),
        same=documents.sums(outputs.top1 == sampled.top1),
        lost=documents.sums(sampled.lost_mass),
        bits=documents.sums(to_bits(outputs.target_log_probs)),
        reference_bits=documents.sums(to_bits(sampled.target_log_probs)),
    )
    return Divergence(
        name=name,
        reference=reference.name,
        kl=ratio(sums.kl, sums.tokens),
        kl_first_piece=ratio(sums.kl_first_piece, sums.tokens),
        kl_quantiles=_quantiles(kl),
        kl_sampled_tokens=sampled.token_ids.shape[1] - int(sampled.top_count[0]),
        same_top1=ratio(sums.same, sums.tokens),
        bits_per_byte=ratio(sums.bits, sums.bytes),
        reference_bits_per_byte=ratio(sums.reference_bits, sums.bytes),
        against=ratio(sums.bits - sums.reference_bits, sums.bytes),
        perplexity_ratio=_perplexity_ratio(sums),
        lost_mass=ratio(sums.lost, sums.tokens) if reference.restricted else None,
        tokens=documents.tokens,
        data=reference.text.sha256,
        sums=sums,
    )


def _quantiles(values: Values) -> Quantiles:
    median, p99, p999 = np.quantile(values, (0.5, 0.99, 0.999))
    return Quantiles(median=float(median), p99=float(p99), p999=float(p999), max=float(values.max()))


def _perplexity_ratio(sums: DocumentSums) -> Estimate:
    """Of the logarithm first, which is what is averaged."""
    growth = ratio((sums.bits - sums.reference_bits) * math.log(2), sums.tokens)
    factor = math.exp(min(growth.value, _MAX_EXPONENT))
    return Estimate(factor, factor * growth.stderr)
