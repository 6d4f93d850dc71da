"""A model's log probabilities at the scored positions of held-out windows, checked to be finite."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from slices.errors import RunFailed
from slices.measure.tokenized import TokenWindow
from slices.progress import Progress
from slices.runtime import Runtime

Chunk = tuple[NDArray[np.int64], NDArray[np.float32]]


def scored_log_probs(
    name: str, runtime: Runtime, windows: Sequence[TokenWindow], progress: Progress | None = None
) -> Iterator[Chunk]:
    """Run the model and yield, a few positions at a time, the text's token ids and the log probabilities.

    Shapes (positions,) and (positions, vocabulary); every scored position comes once, in order.

    Raises:
        RunFailed: the runtime is short of positions, or gives a token of the text no finite probability.
    """
    for number, window in enumerate(windows, start=1):
        targets, start = np.array(window.tokens[1:], dtype=np.int64), 0
        for chunk in runtime.distributions(window.tokens):
            skipped = max(0, window.first_scored - 1 - start)
            target_ids, log_probs = targets[start + skipped : start + len(chunk)], chunk[skipped:]
            start += len(chunk)
            if not len(log_probs):
                continue
            if not _is_finite(target_ids, log_probs):
                raise RunFailed(f"{name} gave no finite probability to every token of window {number}")
            yield target_ids, log_probs
        if start != len(targets):
            raise RunFailed(
                f"{name} gave {start} distributions for the {len(targets)} tokens of window {number}"
            )
        if progress:
            progress(f"evaluate {name}", number, len(windows))


def _is_finite(target_ids: NDArray[np.int64], log_probs: NDArray[np.float32]) -> bool:
    best, targets = log_probs.max(axis=1), log_probs[np.arange(len(target_ids)), target_ids]
    return bool(np.isfinite(best).all() and np.isfinite(targets).all())
