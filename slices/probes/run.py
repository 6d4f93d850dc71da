"""All probes of a model, and which of them it does worse on than a reference."""

from collections.abc import Mapping, Sequence

import numpy as np

from slices.measure.paired import Difference, bootstrap, holm
from slices.probes.needle import LENGTHS, find_needles
from slices.probes.prose import continue_texts
from slices.probes.writing import Progress, close_brackets, end_turns, solve_problems
from slices.runtime import Runtime
from slices.tasks.outcome import Outcome

ITEMS = 50
NEEDLES = 10  # at each length
LOWER_IS_BETTER = ("repetition", "drift")
SURE = 0.05


def probe(
    runtime: Runtime,
    texts: Sequence[str],
    items: int = ITEMS,
    lengths: Sequence[int] = LENGTHS,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Outcome]:
    """Every probe by name.

    Args:
        texts: held-out documents to go on from, and to hide numbers in.
        lengths: tokens of the texts in which a number is hidden; the runtime must read as many.
    """
    found = [
        solve_problems(runtime, items, seed, progress),
        close_brackets(runtime, items, seed, progress),
        end_turns(runtime, items, seed, progress),
        *continue_texts(runtime, texts, items, progress).values(),
        *(find_needles(runtime, texts, each, min(items, NEEDLES), seed, progress) for each in lengths),
    ]
    return {outcome.task: outcome for outcome in found}


def differences(ours: Mapping[str, Outcome], theirs: Mapping[str, Outcome]) -> dict[str, Difference]:
    """Ours less theirs on every probe that asked both the same; p corrected by Holm's method."""
    names = [name for name in ours if name in theirs and ours[name].data == theirs[name].data]
    found = [
        bootstrap(ours[name].scores, theirs[name].scores, np.ones(len(ours[name].scores))) for name in names
    ]
    corrected = holm([each.p for each in found])
    return {
        name: Difference(each.value, each.low, each.high, p, each.n)
        for name, each, p in zip(names, found, corrected, strict=True)
    }


def worse(found: Mapping[str, Difference]) -> list[str]:
    """The probes on which ours is worse, surely."""
    return [
        name
        for name, each in found.items()
        if each.p < SURE and (each.value > 0) == (name in LOWER_IS_BETTER) and each.value != 0
    ]
