"""Layer scores on a domain's text: block influence, and the KL of removing each layer.

Block influence is ShortGPT's (Men et al., 2024, arXiv 2403.03853). The KL is that of the parent with the
layer bypassed; a second one also bypasses the cheapest layer, one step of SLEB's greedy removal (Song et
al., 2024, arXiv 2402.09025). The whole removal order is in `slices.scores.removal`.
"""

from dataclasses import asdict, dataclass
from typing import Any

from slices.architecture.anatomy import Anatomy
from slices.architecture.constraints import removable
from slices.checkpoint import Checkpoint
from slices.errors import BadCheckpoint
from slices.estimate import Estimate
from slices.progress import Progress, no_progress
from slices.scores.bypass import COMPARED_TOKENS, CONTEXT, MAX_TOKENS, block_influence, load_bypass_model
from slices.scores.cache import cache_file, read_scores, write_scores
from slices.text.corpus import Corpus

_STAGE = "score layers"


@dataclass(frozen=True)
class LayerScore:
    """Scores of one layer; KLs in nats per token.

    Attributes:
        influence: block influence, 1 - the cosine similarity of its input and output.
        kl: with the layer bypassed. A layer whose K/V others share cannot be removed on its own; its KL is
            that of its contribution to the residual stream alone.
        kl_after_cheapest: with the cheapest layer bypassed too; None for that layer itself.
    """

    layer: int
    influence: float
    kl: Estimate
    kl_after_cheapest: Estimate | None
    removable: bool


def layer_scores(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    text: Corpus,
    max_tokens: int = MAX_TOKENS,
    progress: Progress = no_progress,
) -> tuple[LayerScore, ...]:
    """Every layer's scores, cached.

    Raises:
        MissingExtra: torch or transformers is not installed.
        NotFound: the parent has no tokenizer.json, or the text no token.
        BadCheckpoint: the cache is damaged.
        RunFailed: the parent gives no finite probabilities.
    """
    path = cache_file("layers", checkpoint, text, (max_tokens, CONTEXT, COMPARED_TOKENS))
    cached = read_scores(path)
    if cached is None:
        scores = _measure(checkpoint, anatomy, text, max_tokens, progress)
        write_scores(path, {"layers": [asdict(score) for score in scores]})
        return scores
    try:
        return tuple(_from_json(each) for each in cached["layers"])
    except (KeyError, TypeError) as error:
        raise BadCheckpoint(f"{path}: damaged scores: {error}; delete the file") from None


def cheapest(scores: tuple[LayerScore, ...]) -> LayerScore:
    """The removable layer of the lowest KL."""
    return min((score for score in scores if score.removable), key=lambda score: score.kl.value)


def _measure(
    checkpoint: Checkpoint, anatomy: Anatomy, text: Corpus, max_tokens: int, progress: Progress
) -> tuple[LayerScore, ...]:
    model = load_bypass_model(checkpoint, anatomy, text, max_tokens)
    states, count = model.states(), len(anatomy.layers)
    removable_layers = removable(anatomy, range(count))
    kls = []
    for layer in range(count):
        kls.append(model.kl([layer], states))
        progress(_STAGE, layer + 1, 2 * count)
    first = min(removable_layers, key=lambda layer: kls[layer].value)
    states_without_first = model.states([first])
    second_kls: list[Estimate | None] = []
    for layer in range(count):
        second_kls.append(None if layer == first else model.kl([first, layer], states_without_first))
        progress(_STAGE, count + layer + 1, 2 * count)
    influence = block_influence(states)
    return tuple(
        LayerScore(
            layer=layer,
            influence=float(influence[layer]),
            kl=kls[layer],
            kl_after_cheapest=second_kls[layer],
            removable=layer in removable_layers,
        )
        for layer in range(count)
    )


def _from_json(stored: dict[str, Any]) -> LayerScore:
    second = stored["kl_after_cheapest"]
    estimates = {"kl": Estimate(**stored["kl"]), "kl_after_cheapest": second and Estimate(**second)}
    return LayerScore(**{**stored, **estimates})
