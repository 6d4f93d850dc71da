"""What each layer is worth on a domain's text: its influence, and what it costs to do without it.

Block influence is ShortGPT's (Men et al., 2024, arXiv 2403.03853). The cost of a layer is the divergence of
the parent without it; the second cost that of a layer after the cheapest one went, which is one step of
SLEB's greedy removal (Song et al., 2024, arXiv 2402.09025). The whole order is in `slices.scores.removal`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from slices.architecture.anatomy import Anatomy
from slices.architecture.constraints import removable
from slices.checkpoint import Checkpoint
from slices.errors import BadCheckpoint
from slices.estimate import Estimate
from slices.scores.cache import cache_file, read_figures, write_figures
from slices.scores.probe import CONTEXT, ROWS, TOKENS, influence, open_probe
from slices.text.corpus import Corpus

Progress = Callable[[int, int], None]  # layers bypassed, of how many


@dataclass(frozen=True)
class LayerScore:
    """One layer. Costs in nats a token; `second` is with the cheapest layer gone, None for itself.

    A layer that others share the K/V of cannot be removed on its own; its cost is of what it adds alone.
    """

    layer: int
    influence: float
    cost: Estimate
    second: Estimate | None
    removable: bool


def layer_scores(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    text: Corpus,
    tokens: int = TOKENS,
    progress: Progress = lambda done, total: None,
) -> tuple[LayerScore, ...]:
    """Every layer's scores, from the cache where they are there.

    Raises:
        MissingExtra: torch or transformers is not installed.
        NotFound: the parent has no tokenizer.json, or the text no token.
        BadCheckpoint: the cache is damaged.
        RunFailed: the parent gives no finite probabilities.
    """
    path = cache_file("layers", checkpoint, text, (tokens, CONTEXT, ROWS))
    kept = read_figures(path)
    if kept is None:
        found = _measured(checkpoint, anatomy, text, tokens, progress)
        write_figures(path, {"layers": [asdict(score) for score in found]})
        return found
    try:
        return tuple(_score(each) for each in kept["layers"])
    except (KeyError, TypeError) as error:
        raise BadCheckpoint(f"{path}: damaged scores: {error}; delete the file") from None


def cheapest(scores: tuple[LayerScore, ...]) -> LayerScore:
    """The layer that is missed least, among those that can go."""
    return min((score for score in scores if score.removable), key=lambda score: score.cost.value)


def _measured(
    checkpoint: Checkpoint, anatomy: Anatomy, text: Corpus, tokens: int, progress: Progress
) -> tuple[LayerScore, ...]:
    probe = open_probe(checkpoint, anatomy, text, tokens)
    whole, count = probe.states(), len(anatomy.layers)
    able = removable(anatomy, range(count))
    costs = []
    for layer in range(count):
        costs.append(probe.cost([layer], whole))
        progress(layer + 1, 2 * count)
    first = min(able, key=lambda layer: costs[layer].value)
    without = probe.states([first])
    seconds: list[Estimate | None] = []
    for layer in range(count):
        seconds.append(None if layer == first else probe.cost([first, layer], without))
        progress(count + layer + 1, 2 * count)
    found = zip(influence(whole), costs, seconds, strict=True)
    return tuple(
        LayerScore(layer, float(value), cost, second, layer in able)
        for layer, (value, cost, second) in enumerate(found)
    )


def _score(stored: dict[str, Any]) -> LayerScore:
    second = stored["second"]
    estimates = {"cost": Estimate(**stored["cost"]), "second": second and Estimate(**second)}
    return LayerScore(**{**stored, **estimates})
