"""All probes of a model, and those on which it is significantly worse than a baseline."""

from collections.abc import Mapping, Sequence

import numpy as np

from slices.measure.paired import Difference, bootstrap, holm
from slices.probes.degeneration import OOV_RATE, REPETITION, degeneration
from slices.probes.needle_in_a_haystack import LENGTHS, needle_in_a_haystack
from slices.probes.synthetic_tasks import arithmetic, brackets, end_of_turn
from slices.progress import Progress, no_progress
from slices.runtime import Runtime
from slices.tasks.item_scores import ItemScores

ITEMS = 50
NEEDLES_PER_LENGTH = 10
LOWER_IS_BETTER = (REPETITION, OOV_RATE)
SIGNIFICANCE_LEVEL = 0.05


def run_probes(
    runtime: Runtime,
    texts: Sequence[str],
    items: int = ITEMS,
    needle_lengths: Sequence[int] = LENGTHS,
    seed: int = 0,
    progress: Progress = no_progress,
) -> dict[str, ItemScores]:
    """Scores of every probe by name.

    Args:
        texts: held-out documents, which are continued and serve as haystacks.
        needle_lengths: context lengths of the needle in a haystack, in tokens; the runtime must take as many.
    """
    scores = [
        arithmetic(runtime, items, seed, progress),
        brackets(runtime, items, seed, progress),
        end_of_turn(runtime, items, seed, progress),
        *degeneration(runtime, texts, items, progress).values(),
        *(
            needle_in_a_haystack(runtime, texts, length, min(items, NEEDLES_PER_LENGTH), seed, progress)
            for length in needle_lengths
        ),
    ]
    return {each.task: each for each in scores}


def differences(model: Mapping[str, ItemScores], baseline: Mapping[str, ItemScores]) -> dict[str, Difference]:
    """Model minus baseline on every probe with the same items; p-values corrected by Holm's method."""
    names = [
        name for name in model if name in baseline and model[name].data_sha256 == baseline[name].data_sha256
    ]
    found = [
        bootstrap(model[name].scores, baseline[name].scores, np.ones(len(model[name].scores)))
        for name in names
    ]
    corrected = holm([each.p for each in found])
    return {
        name: Difference(value=each.value, low=each.low, high=each.high, p=p, n=each.n)
        for name, each, p in zip(names, found, corrected, strict=True)
    }


def significantly_worse(found: Mapping[str, Difference]) -> list[str]:
    """The probes on which the model is worse than the baseline at `SIGNIFICANCE_LEVEL`."""
    return [
        name
        for name, each in found.items()
        if each.p < SIGNIFICANCE_LEVEL and (each.value > 0) == (name in LOWER_IS_BETTER) and each.value != 0
    ]
