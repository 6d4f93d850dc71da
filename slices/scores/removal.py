"""The greedy removal order: each step removes the layer whose removal increases KL the least.

As in SLEB (Song et al., 2024, arXiv 2402.09025), on the domain's text, always leaving a valid cut. KLs are
measured anew at each step, on top of the layers removed so far, but lazily (Minoux, 1978): the KL that a
layer adds seldom falls as others are removed, so layers are tried from the least added KL of earlier
steps, up to where `LAZY_FACTOR` of it is more than the best layer of this step adds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any

from slices.architecture.anatomy import Anatomy
from slices.architecture.constraints import removable
from slices.architecture.removal import LayerRemoval
from slices.checkpoint import Checkpoint
from slices.errors import BadCheckpoint, InvalidCut
from slices.estimate import Estimate
from slices.progress import Progress, no_progress
from slices.scores.bypass import COMPARED_TOKENS, CONTEXT, MAX_TOKENS, BypassModel, load_bypass_model
from slices.scores.cache import cache_file, read_scores, write_scores
from slices.text.corpus import Corpus

MAX_KL = 0.05  # nats per token that `--layers auto` may add
LAZY_FACTOR = (
    0.8  # lower bound of a layer's added KL, of its last measurement; docs/log.md has what it misses
)
_STAGE = "score layers"


def removal_order(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    text: Corpus,
    count: int,
    progress: Progress = no_progress,
    max_tokens: int = MAX_TOKENS,
) -> tuple[LayerRemoval, ...]:
    """The first `count` layers to remove, in order; cached.

    Raises:
        InvalidCut: so many cannot be removed.
        SliceError: as `slices.scores.layers.layer_scores`.
    """
    _check_count(anatomy, count)
    order = _extend_order(
        checkpoint, anatomy, text, max_tokens, progress, lambda removals: len(removals) < count
    )
    return order[:count]


def removals_within(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    text: Corpus,
    max_kl: float = MAX_KL,
    progress: Progress = no_progress,
    max_tokens: int = MAX_TOKENS,
) -> tuple[LayerRemoval, ...]:
    """As many layers as can be removed at a KL of at most `max_kl` nats per token; maybe none."""

    def wants_more(removals: Sequence[LayerRemoval]) -> bool:
        return not removals or removals[-1].kl.value <= max_kl

    order = _extend_order(checkpoint, anatomy, text, max_tokens, progress, wants_more)
    return tuple(takewhile(lambda removal: removal.kl.value <= max_kl, order))


def auto_layers(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    text: Corpus,
    keep: int | None,
    progress: Progress = no_progress,
) -> tuple[LayerRemoval, ...]:
    """The removals of `--layers auto` (`keep` None) or `auto:N`."""
    if keep is None:
        return removals_within(checkpoint, anatomy, text, progress=progress)
    return removal_order(checkpoint, anatomy, text, len(anatomy.layers) - keep, progress)


def remaining_layers(anatomy: Anatomy, removals: Sequence[LayerRemoval]) -> tuple[int, ...]:
    """The layers that stay, ascending."""
    removed = {removal.layer for removal in removals}
    return tuple(layer.index for layer in anatomy.layers if layer.index not in removed)


WantsMore = Callable[[Sequence[LayerRemoval]], bool]  # whether to remove another layer after these
AddedKl = dict[int, float]  # by layer: the KL that its removal added when it was last tried


def _extend_order(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    text: Corpus,
    max_tokens: int,
    progress: Progress,
    wants_more: WantsMore,
) -> tuple[LayerRemoval, ...]:
    """The cached order, extended while `wants_more` and a layer can be removed."""
    settings = (max_tokens, CONTEXT, COMPARED_TOKENS, LAZY_FACTOR)
    path = cache_file("removal", checkpoint, text, settings)
    removals, added_kl = _read_order(path)
    model: BypassModel | None = None
    while wants_more(removals) and _candidates(anatomy, removals):
        model = model or load_bypass_model(checkpoint, anatomy, text, max_tokens)
        removals.append(_next_removal(model, removals, _candidates(anatomy, removals), added_kl, progress))
        write_scores(path, {"order": [asdict(removal) for removal in removals], "added_kl": added_kl})
    return tuple(removals)


def _next_removal(
    model: BypassModel,
    removals: Sequence[LayerRemoval],
    candidates: Sequence[int],
    added_kl: AddedKl,
    progress: Progress,
) -> LayerRemoval:
    """The candidate whose removal adds the least KL; `added_kl` is updated."""
    removed = [removal.layer for removal in removals]
    states, current_kl = model.states(removed), removals[-1].kl.value if removals else 0.0
    last_added = {layer: added_kl.get(layer, -math.inf) for layer in candidates}  # new ones are tried
    kls: dict[int, Estimate] = {}
    for layer in sorted(candidates, key=lambda each: last_added[each]):
        lower_bound = current_kl + LAZY_FACTOR * last_added[layer]
        if kls and lower_bound >= min(kl.value for kl in kls.values()):
            break
        kls[layer] = model.kl([*removed, layer], states)
        added_kl[layer] = kls[layer].value - current_kl
        progress(_STAGE, len(kls), len(candidates))
    progress(_STAGE, len(candidates), len(candidates))
    layer = min(kls, key=lambda each: kls[each].value)
    return LayerRemoval(layer, kls[layer])


def _candidates(anatomy: Anatomy, removals: Sequence[LayerRemoval]) -> tuple[int, ...]:
    """The layers that can be removed next."""
    kept = remaining_layers(anatomy, removals)
    return removable(anatomy, kept) if len(kept) > 1 else ()


def _check_count(anatomy: Anatomy, count: int) -> None:
    total = len(anatomy.layers)
    if not 0 <= count < total:
        raise InvalidCut(f"{count} of {total} layers cannot be removed: expected 0 to {total - 1}")


def _read_order(path: Path) -> tuple[list[LayerRemoval], AddedKl]:
    cached: dict[str, Any] = read_scores(path) or {"order": []}
    try:
        removals = [LayerRemoval(each["layer"], Estimate(**each["kl"])) for each in cached["order"]]
        return removals, {int(layer): float(kl) for layer, kl in cached.get("added_kl", {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadCheckpoint(f"{path}: damaged scores: {error}; delete the file") from None
