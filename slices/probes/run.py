"""All probes of a model, and those on which it is significantly worse than a baseline."""

from collections.abc import Mapping, Sequence

import numpy as np

from slices.estimate import Values
from slices.measure.paired import Difference, corrected, mcnemar, paired_difference
from slices.probes.degeneration import OOV_RATE, REPETITION, degeneration
from slices.probes.needle_in_a_haystack import LENGTHS, needle_in_a_haystack
from slices.probes.synthetic_tasks import arithmetic, brackets, end_of_turn
from slices.progress import Progress, no_progress
from slices.runtime import Runtime
from slices.tasks.item_scores import ItemScores

ITEMS = 50
NEEDLES_PER_LENGTH = 10
LOWER_IS_BETTER = (REPETITION, OOV_RATE)


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
    return corrected({name: _difference(model[name].scores, baseline[name].scores) for name in names})


def significantly_worse(found: Mapping[str, Difference]) -> list[str]:
    """The probes on which the model is worse than the baseline; none of too few items is known to be."""
    significant = {name: each.value > 0 for name, each in found.items() if each.significant}
    return [name for name, higher in significant.items() if higher == (name in LOWER_IS_BETTER)]


def _difference(ours: Values, theirs: Values) -> Difference:
    """McNemar's test where every score is 0 or 1."""
    if np.isin([ours, theirs], (0, 1)).all():
        return mcnemar(ours > 0, theirs > 0)
    return paired_difference(ours, theirs, np.ones(len(ours)))
