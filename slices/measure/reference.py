"""A reference's distributions over held-out text, against which models are measured one after another.

They are in memory, 800 bytes a token, so the reference itself may be closed before the first model is opened.
`slices.measure.reference_cache` keeps them on disk as well; `slices.measure.divergence` compares.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slices.errors import RunFailed
from slices.measure.heldout import Heldout
from slices.measure.log_probs import scored_log_probs
from slices.measure.sampled_distribution import SampledDistribution, sample_distribution
from slices.measure.tokenized import TokenWindow, map_token_ids, tokenize_windows
from slices.progress import Progress
from slices.runtime import Runtime
from slices.runtimes.softmax import ROWS

PER_POSITION = ("token_ids", "log_probs", "target_log_probs", "lost_mass")  # fields with a row a position


@dataclass(frozen=True)
class Reference:
    """A reference's distributions on a text, for models of one vocabulary.

    `windows` are in the models' token ids; `vocabulary` is their number of tokens. `restricted`: the
    reference has tokens that the models lack, and its distributions are restricted to theirs.
    """

    name: str
    text: Heldout
    windows: tuple[TokenWindow, ...]
    vocabulary: int
    restricted: bool
    distribution: SampledDistribution


def compute_reference(
    name: str,
    runtime: Runtime,
    text: Heldout,
    windows: Sequence[TokenWindow] | None = None,
    ids: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> Reference:
    """Run the reference over `text`.

    Args:
        windows: in the models' token ids; by default as the reference encodes them.
        ids: where the models have a part of its vocabulary: the reference's id of each of theirs, shape
            (models' vocabulary,), -1 for a row without a token.

    Raises:
        RunFailed: the reference gives no finite probability; `name` is in the message.
    """
    windows = tuple(windows or tokenize_windows(name, runtime, text))
    distribution, vocabulary = compute_distribution(name, runtime, windows, ids, progress)
    return Reference(
        name=name,
        text=text,
        windows=windows,
        vocabulary=vocabulary,
        restricted=ids is not None,
        distribution=distribution,
    )


def compute_distribution(
    name: str,
    runtime: Runtime,
    windows: Sequence[TokenWindow],
    ids: NDArray[np.int64] | None,
    progress: Progress | None = None,
) -> tuple[SampledDistribution, int]:
    """The reference's distributions over the models' vocabulary, and the size of that vocabulary."""
    unused = np.empty(0, np.int32) if ids is None else np.flatnonzero(ids < 0).astype(np.int32)
    own = windows if ids is None else map_token_ids(windows, ids)
    parts, vocabulary = [], 0
    for number, (target_ids, log_probs) in enumerate(scored_log_probs(name, runtime, own, progress)):
        targets = log_probs[np.arange(len(log_probs)), target_ids]
        lost = np.zeros(len(log_probs))
        if ids is not None:
            log_probs, lost = restrict_vocabulary(log_probs, ids)
        vocabulary = log_probs.shape[1]
        parts.append(sample_distribution(log_probs, lost.astype(np.float32), targets, unused, seed=number))
    if not parts:
        raise RunFailed(f"{name}: there is no position to read")
    joined = {field: np.concatenate([getattr(part, field) for part in parts]) for field in PER_POSITION}
    return SampledDistribution(top_count=parts[0].top_count, unused_columns=unused, **joined), vocabulary


def restrict_vocabulary(
    log_probs: NDArray[np.float32], ids: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Condition log probabilities (positions, vocabulary) on the tokens `ids` (part,), where -1 is no token.

    Returns:
        Log probabilities that sum to one, (positions, part), and the other tokens' mass, (positions,).
    """
    part = np.where(ids >= 0, log_probs[:, ids], np.float32(-np.inf))
    total = np.empty(len(part))
    for start in range(0, len(part), ROWS):
        total[start : start + ROWS] = np.exp(part[start : start + ROWS]).sum(axis=1, dtype=np.float64)
    part -= np.log(total).astype(np.float32)[:, None]
    return part, np.maximum(0.0, 1.0 - total)
