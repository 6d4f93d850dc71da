"""A reference's distributions over held-out text, against which models are measured one after another.

They are in memory, 800 bytes a token and twice that for models of a part of its vocabulary, so the reference
itself may be closed before the first model is opened. `slices.measure.reference_cache` keeps them on disk as
well; `slices.measure.divergence` compares.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from slices.errors import RunFailed
from slices.measure.heldout import Heldout
from slices.measure.log_probs import scored_log_probs
from slices.measure.lost_tokens import add_to_first_pieces, restrict_vocabulary
from slices.measure.sampled_distribution import SampledDistribution, sample_distribution
from slices.measure.token_map import TokenMap
from slices.measure.tokenized import TokenWindow, map_token_ids, tokenize_windows
from slices.progress import Progress
from slices.runtime import Runtime

PER_POSITION = ("token_ids", "log_probs", "target_log_probs", "lost_mass")  # fields with a row a position


@dataclass(frozen=True)
class Reference:
    """A reference's distributions on a text, for models of one vocabulary.

    `windows` are in the models' token ids; `vocabulary` is their number of tokens. `restricted`: the
    reference has tokens that the models lack, and `distribution` is restricted to theirs. In `first_piece`
    each of the others has its probability at the first of the models' tokens that spell it; None where there
    are no others, so that both are the same.
    """

    name: str
    text: Heldout
    windows: tuple[TokenWindow, ...]
    vocabulary: int
    restricted: bool
    distribution: SampledDistribution
    first_piece: SampledDistribution | None


@dataclass(frozen=True)
class Distributions:
    """What is computed of a reference: as `Reference` has it, and the models' number of tokens."""

    kept: SampledDistribution
    first_piece: SampledDistribution | None
    vocabulary: int


def compute_reference(
    name: str,
    runtime: Runtime,
    text: Heldout,
    windows: Sequence[TokenWindow] | None = None,
    token_map: TokenMap | None = None,
    progress: Progress | None = None,
) -> Reference:
    """Run the reference over `text`.

    Args:
        windows: in the models' token ids; by default as the reference encodes them.
        token_map: where the models have a part of its vocabulary: which of the reference's tokens theirs are.

    Raises:
        RunFailed: the reference gives no finite probability; `name` is in the message.
    """
    windows = tuple(windows or tokenize_windows(name, runtime, text))
    found = compute_distributions(name, runtime, windows, token_map, progress)
    return make_reference(name, text, windows, token_map, found)


def make_reference(
    name: str,
    text: Heldout,
    windows: tuple[TokenWindow, ...],
    token_map: TokenMap | None,
    found: Distributions,
) -> Reference:
    """A reference of distributions that were computed or read."""
    return Reference(
        name=name,
        text=text,
        windows=windows,
        vocabulary=found.vocabulary,
        restricted=token_map is not None,
        distribution=found.kept,
        first_piece=found.first_piece,
    )


def compute_distributions(
    name: str,
    runtime: Runtime,
    windows: Sequence[TokenWindow],
    token_map: TokenMap | None,
    progress: Progress | None = None,
) -> Distributions:
    """The reference's distributions over the models' vocabulary.

    Raises:
        RunFailed: there is no position to read, or no finite probability there.
    """
    own, unused = windows, np.empty(0, np.int32)
    if token_map is not None:
        own, unused = (
            map_token_ids(windows, token_map.ids),
            np.flatnonzero(token_map.ids < 0).astype(np.int32),
        )
    spelled = token_map is not None and len(token_map.spelled) > 0
    kept, first_piece, vocabulary = [], [], 0
    for number, (target_ids, log_probs) in enumerate(scored_log_probs(name, runtime, own, progress)):
        targets = log_probs[np.arange(len(log_probs)), target_ids]
        part, lost = log_probs, np.zeros(len(log_probs))
        if token_map is not None:
            part, lost = restrict_vocabulary(log_probs, token_map.ids)
        vocabulary, others = part.shape[1], (lost.astype(np.float32), targets, unused)
        kept.append(sample_distribution(part, *others, seed=number))
        if spelled and token_map is not None:
            summed = add_to_first_pieces(log_probs, token_map)
            first_piece.append(sample_distribution(summed, *others, seed=number))
    if not kept:
        raise RunFailed(f"{name}: there is no position to read")
    return Distributions(_join(kept), _join(first_piece) if spelled else None, vocabulary)


def _join(parts: Sequence[SampledDistribution]) -> SampledDistribution:
    joined = {field: np.concatenate([getattr(part, field) for part in parts]) for field in PER_POSITION}
    return replace(parts[0], **joined)
