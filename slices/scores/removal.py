"""Which layers to do without, one after the other: at each step the one whose absence costs least.

Greedy removal as in SLEB (Song et al., 2024, arXiv 2402.09025), on the domain's text, always leaving a legal
cut. Costs are measured anew at each step, with all that went before gone, but lazily (Minoux, 1978): what a
layer adds seldom falls when others have gone, so one that added much is not tried before the cheap ones,
and not at all where `SURELY` of that is more than the best of them costs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any

from slices.architecture.anatomy import Anatomy
from slices.architecture.constraints import removable
from slices.architecture.removal import Removal
from slices.checkpoint import Checkpoint
from slices.errors import BadCheckpoint, InvalidCut
from slices.estimate import Estimate
from slices.scores.cache import cache_file, read_figures, write_figures
from slices.scores.probe import CONTEXT, ROWS, TOKENS, Probe, open_probe
from slices.text.corpus import Corpus

MOST_KL = 0.05  # nats a token that `--layers auto` may cost
SURELY = 0.8  # of what a layer added, what it will add at least; docs/log.md has what that misses
Progress = Callable[[int, int], None]  # removals tried, of how many at most


def removal_order(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    text: Corpus,
    count: int,
    progress: Progress = lambda done, total: None,
    tokens: int = TOKENS,
) -> tuple[Removal, ...]:
    """The first `count` layers to go, in order; from the cache as far as it goes.

    Raises:
        InvalidCut: so many cannot go.
        SliceError: as `slices.scores.layers.layer_scores`.
    """
    _check_count(anatomy, count)
    order = _continued(checkpoint, anatomy, text, tokens, progress, lambda found: len(found) < count)
    return order[:count]


def layers_within(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    text: Corpus,
    most: float = MOST_KL,
    progress: Progress = lambda done, total: None,
    tokens: int = TOKENS,
) -> tuple[Removal, ...]:
    """As many layers as can go for a divergence of at most `most` nats a token; maybe none."""

    def wanted(found: Sequence[Removal]) -> bool:
        return not found or found[-1].kl.value <= most

    order = _continued(checkpoint, anatomy, text, tokens, progress, wanted)
    return tuple(takewhile(lambda removal: removal.kl.value <= most, order))


def auto_layers(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    text: Corpus,
    keep: int | None,
    progress: Progress = lambda done, total: None,
) -> tuple[Removal, ...]:
    """What `--layers auto` (`keep` None) or `auto:N` removes."""
    if keep is None:
        return layers_within(checkpoint, anatomy, text, progress=progress)
    return removal_order(checkpoint, anatomy, text, len(anatomy.layers) - keep, progress)


def remaining_layers(anatomy: Anatomy, removed: tuple[Removal, ...]) -> tuple[int, ...]:
    """The layers that stay, ascending."""
    gone = {removal.layer for removal in removed}
    return tuple(layer.index for layer in anatomy.layers if layer.index not in gone)


Wanted = Callable[[Sequence[Removal]], bool]  # whether another layer is to go
Added = dict[int, float]  # by layer, what its absence added to the divergence when it was last tried


def _continued(
    checkpoint: Checkpoint, anatomy: Anatomy, text: Corpus, tokens: int, progress: Progress, wanted: Wanted
) -> tuple[Removal, ...]:
    """The order as far as it is known, and on from there for as long as more is wanted and can go."""
    path = cache_file("removal", checkpoint, text, (tokens, CONTEXT, ROWS, SURELY))
    found, added = _known(path)
    probe: Probe | None = None
    while wanted(found) and _able(anatomy, found):
        probe = probe or open_probe(checkpoint, anatomy, text, tokens)
        found.append(_next(probe, found, _able(anatomy, found), added, progress))
        write_figures(path, {"order": [asdict(removal) for removal in found], "added": added})
    return tuple(found)


def _next(
    probe: Probe, found: Sequence[Removal], able: Sequence[int], added: Added, progress: Progress
) -> Removal:
    """The cheapest layer to go next; who can hardly cost less than the best so far is not tried."""
    gone = [removal.layer for removal in found]
    below, so_far = probe.states(gone), found[-1].kl.value if found else 0.0
    before = {layer: added.get(layer, -math.inf) for layer in able}  # who is new is tried
    costs: dict[int, Estimate] = {}
    for layer in sorted(able, key=lambda each: before[each]):
        if costs and so_far + SURELY * before[layer] >= min(cost.value for cost in costs.values()):
            break
        costs[layer] = probe.cost([*gone, layer], below)
        added[layer] = costs[layer].value - so_far
        progress(len(costs), len(able))
    progress(len(able), len(able))
    layer = min(costs, key=lambda each: costs[each].value)
    return Removal(layer, costs[layer])


def _able(anatomy: Anatomy, found: Sequence[Removal]) -> tuple[int, ...]:
    kept = remaining_layers(anatomy, tuple(found))
    return removable(anatomy, kept) if len(kept) > 1 else ()


def _check_count(anatomy: Anatomy, count: int) -> None:
    if not 0 <= count < len(anatomy.layers):
        raise InvalidCut(
            f"{count} of {len(anatomy.layers)} layers cannot go: expected 0 to {len(anatomy.layers) - 1}"
        )


def _known(path: Path) -> tuple[list[Removal], Added]:
    kept: dict[str, Any] = read_figures(path) or {"order": []}
    try:
        found = [Removal(each["layer"], Estimate(**each["kl"])) for each in kept["order"]]
        return found, {int(layer): float(cost) for layer, cost in kept.get("added", {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadCheckpoint(f"{path}: damaged scores: {error}; delete the file") from None
