"""Full-attention layers limited to the sliding window: what becomes of a layer, and what is refused.

Within the window both masks are the same; beyond it such a layer needs no K/V. A Gemma 3's full-attention
layers differ from its sliding ones in the mask and the rotary theta alone, so that either theta will do:
with the local one the layer is a sliding layer to every runtime, with the global one it is the parent's
layer up to the window. A Gemma 4's have other heads, a partial rotary embedding and K/V donors of their own:
only the mask can change.
"""

from collections.abc import Sequence
from dataclasses import replace

from slices.architecture.anatomy import Anatomy
from slices.architecture.attention import Attention, RopeTheta
from slices.errors import InvalidCut
from slices.families.table import FULL, SLIDING, Layer


def resolve_rope_theta(
    anatomy: Anatomy, attention: Attention, requested: RopeTheta | None
) -> RopeTheta | None:
    """The theta of the windowed layers, None where full attention is kept.

    Raises:
        InvalidCut: a theta without `sliding`, the local one for a family whose layers differ in more, or a
            parent without a sliding window.
    """
    if attention == Attention.KEEP:
        if requested is not None:
            raise InvalidCut(f"--rope-theta {requested}: expected --attention sliding with it")
        return None
    if not anatomy.dims.sliding_window:
        raise InvalidCut("--attention sliding: the parent's config.json has no sliding_window")
    local = anatomy.family.same_heads
    if requested == RopeTheta.LOCAL and not local:
        raise InvalidCut(
            f"--rope-theta local: the full-attention layers of {anatomy.family.name} differ from its sliding "
            "ones in heads and rotary embedding too; expected global"
        )
    return requested or (RopeTheta.LOCAL if local else RopeTheta.GLOBAL)


def check_window(anatomy: Anatomy, layers: Sequence[int], theta: RopeTheta | None, portable: bool) -> None:
    """Refuse windowed layers in a slice that stock transformers shall load.

    Raises:
        InvalidCut: a kept full-attention layer keeps its global theta, which no stock class can say.
    """
    kept = [index for index in layers if windowed(anatomy.layers[index], theta).windowed]
    if portable and kept:
        raise InvalidCut(
            f"--portable: stock transformers cannot limit layers {kept} to the sliding window with the "
            "rotary theta of full attention; expected a slice without --portable"
        )


def windowed(layer: Layer, theta: RopeTheta | None) -> Layer:
    """A layer of the parent as the slice has it; `theta` None keeps full attention."""
    if layer.type != FULL or theta is None:
        return layer
    return replace(layer, type=SLIDING) if theta == RopeTheta.LOCAL else replace(layer, windowed=True)
