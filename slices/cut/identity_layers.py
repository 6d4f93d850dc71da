"""The layers of a slice in order: the parent's that stay, and the identity layers that transformers needs.

Stock transformers makes the last layer of a Gemma 4 a full-attention layer, whatever its config says,
and needs a layer with K/V of its own for every attention type in use. A slice that ends on a sliding layer
satisfies both with identity layers: full-attention layers whose matrices are all zero (norms and scales are
one), so that the residual stream passes unchanged. Where the slice shares K/V, the last layer shares too, so
a second identity layer right before the sharing boundary gives it K/V to read. That one changes no sliding
layer's K/V donor, and puts the two donors where llama.cpp looks for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slices.architecture.anatomy import Anatomy
from slices.architecture.attention import RopeTheta
from slices.architecture.window import windowed
from slices.families.table import FULL, Layer, LayerType


@dataclass(frozen=True)
class SliceLayer:
    """One layer of the slice. `parent` is its index in the parent, None for an identity layer."""

    parent: int | None
    type: LayerType
    shared: bool  # it reads the K/V of an earlier layer
    windowed: bool = False  # a full-attention layer limited to the sliding window

    @property
    def is_identity(self) -> bool:
        """Whether it passes its input on unchanged."""
        return self.parent is None


def build_slice_layers(
    anatomy: Anatomy, layers: Sequence[int], portable: bool, theta: RopeTheta | None = None
) -> tuple[SliceLayer, ...]:
    """The slice's layers, with identity layers where it is to be `portable` and needs them.

    Args:
        theta: that of full-attention layers limited to the sliding window; None keeps full attention.
    """
    kept = [_slice_layer(windowed(anatomy.layers[i], theta)) for i in layers]
    if not portable or not ends_sliding(anatomy, layers):
        return tuple(kept)
    own = [layer for layer in kept if not layer.shared]
    shared = [layer for layer in kept if layer.shared]
    if shared and any(layer.type == FULL for layer in own):
        return (*own, *shared, SliceLayer(None, FULL, shared=True))
    boundary = SliceLayer(None, FULL, shared=False)
    return (*own, boundary, *shared, SliceLayer(None, FULL, shared=True)) if shared else (*own, boundary)


def _slice_layer(layer: Layer) -> SliceLayer:
    return SliceLayer(layer.index, layer.type, layer.shared, layer.windowed)


def ends_sliding(anatomy: Anatomy, layers: Sequence[int]) -> bool:
    """Whether transformers would force the last of these layers, a sliding one, to full attention."""
    family = anatomy.family
    forced = anatomy.model_type in {*family.forced_full_types, *family.forced_full_types.values()}
    return forced and anatomy.layers[layers[-1]].type != FULL
