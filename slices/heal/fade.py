"""Dropped layers that fade out: their residual contribution goes linearly from 1 to 0 while the slice trains.

A step's student is the parent's stack, in which each dropped layer adds a share of what it added there; its
weights are the teacher's, frozen. So training starts near the parent, not at the KL of a broken stack. What
is evaluated and saved is the slice alone. Layers are faded out like this, by a gate that is not learned, as
stochastic depth does by a probability (Huang et al., 2016, arXiv 1603.09382).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from slices.architecture.anatomy import Anatomy
from slices.errors import BadConfig
from slices.families.gemma3 import GEMMA3
from slices.families.table import FULL, SLIDING
from slices.heal.settings import HealConfig
from slices.runtimes.decoder import decoder_layers, final_norm, text_model


@dataclass(frozen=True)
class FadingLayers:
    """Dropped layers, by the module of the student that follows them: a kept layer, or the final norm.

    Attributes:
        parent: the parent's text model, which the layers belong to.
        before: pairs of such a module and the indices of the dropped layers before it, ascending.
    """

    parent: Any
    before: Sequence[tuple[Any, Sequence[int]]]

    @contextmanager
    def at(self, factor: float) -> Iterator[None]:
        """Let the student's forward passes add `factor` times the dropped layers' contributions."""
        hooks = [
            module.register_forward_pre_hook(self._hook(layers, factor)) for module, layers in self.before
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, layers: Sequence[int], factor: float) -> Callable[..., Any]:
        def hook(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden, *others = args
            for index in layers:
                hidden = hidden + factor * (self._run(index, hidden) - hidden)
            return (hidden, *others)

        return hook

    def _run(self, index: int, hidden: Any) -> Any:
        """The output of a layer of the parent for (rows, tokens, hidden), which starts at position 0."""
        import torch

        model, kind = self.parent, self.parent.config.layer_types[index]
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        return model.layers[index](
            hidden,
            attention_mask=_mask(model.config, kind, hidden, positions),
            position_embeddings=model.rotary_emb(hidden, positions, kind),
            position_ids=positions,
        )


def fading_layers(student: Any, teacher: Any, anatomy: Anatomy, kept: Sequence[int]) -> FadingLayers:
    """The layers of the parent that the slice dropped, once `check_fade` has none against it.

    Args:
        student, teacher: models in torch, the slice and its parent.
        anatomy: the parent's.
        kept: the parent's layers that the slice kept, ascending.
    """
    dropped = [layer.index for layer in anatomy.layers if layer.index not in kept]
    followers = [*zip(kept, decoder_layers(student), strict=True), (len(anatomy.layers), final_norm(student))]
    before, start = [], 0
    for index, module in followers:
        if gap := [each for each in dropped if start <= each < index]:
            before.append((module, gap))
        start = index
    return FadingLayers(text_model(teacher), before)


def check_fade(anatomy: Anatomy, dropped: Sequence[int], teacher_cached: bool) -> None:
    """Refuse what cannot be faded.

    Raises:
        BadConfig: no layer was dropped, the teacher is cached, or the parent is no Gemma 3: a Gemma 4's
            layers read per-layer embeddings and shared K/V that the slice does not have.
    """
    if not dropped:
        raise BadConfig("--fade: expected a slice whose layers were dropped; this one kept them all")
    if teacher_cached:
        raise BadConfig("--fade: expected no --teacher: the dropped layers run, which a cached one has not")
    if anatomy.family is not GEMMA3:
        raise BadConfig(
            f"--fade: layers {list(dropped)} of a {anatomy.model_type} cannot be faded: they read per-layer "
            "embeddings and shared K/V that the slice does not have; expected a slice of a Gemma 3"
        )


def fade_factor(config: HealConfig, step: int) -> float:
    """The share of the dropped layers' contribution at a step, counted from 0: linear from 1 to 0."""
    return max(0.0, 1 - step / config.fade_steps) if config.fade_steps else 0.0


@contextmanager
def faded(layers: FadingLayers | None, config: HealConfig, step: int) -> Iterator[None]:
    """Let the student run as it does at a training step."""
    factor = fade_factor(config, step)
    if layers is None or not factor:
        yield
        return
    with layers.at(factor):
        yield


def _mask(config: Any, kind: str, hidden: Any, positions: Any) -> Any:
    """The attention mask of an attention type for rows without padding."""
    from transformers import masking_utils

    create: Mapping[str, Any] = {
        FULL: masking_utils.create_causal_mask,
        SLIDING: masking_utils.create_sliding_window_causal_mask,
    }
    return create[kind](config, hidden, None, None, positions)
