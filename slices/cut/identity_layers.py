"""The layers of a slice in order: the parent's that stay, and spacers where stock transformers needs one.

Stock transformers makes the last layer of a Gemma 4 a full-attention layer, whatever its config says,
and wants every attention type in use to have a layer with K/V of its own. A slice that ends on a sliding
layer gets there by spacers: full layers that hand their input on unchanged, because every matrix in them
is zero (and every norm and scale one). Where the slice shares K/V, the last layer shares too, so a second
spacer right before the sharing boundary gives it K/V to read. That one changes no sliding layer's donor,
and puts the two donors where llama.cpp looks for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slices.architecture.anatomy import Anatomy
from slices.families.table import FULL, LayerType


@dataclass(frozen=True)
class Place:
    """One layer of the slice: which of the parent's it is, None for a spacer."""

    parent: int | None
    type: LayerType
    shared: bool


def arrange(anatomy: Anatomy, layers: Sequence[int], portable: bool) -> tuple[Place, ...]:
    """The slice's layers, with the spacers that it takes if it is to be `portable`."""
    kept = [Place(i, anatomy.layers[i].type, anatomy.layers[i].shared) for i in layers]
    if not portable or not ends_sliding(anatomy, layers):
        return tuple(kept)
    own = [place for place in kept if not place.shared]
    shared = [place for place in kept if place.shared]
    if shared and any(place.type == FULL for place in own):
        return (*own, *shared, Place(None, FULL, shared=True))
    boundary = Place(None, FULL, shared=False)
    return (*own, boundary, *shared, Place(None, FULL, shared=True)) if shared else (*own, boundary)


def ends_sliding(anatomy: Anatomy, layers: Sequence[int]) -> bool:
    """Whether transformers would turn the last of these layers into another one."""
    family = anatomy.family
    forced = anatomy.model_type in {*family.ends_full, *family.ends_full.values()}
    return forced and anatomy.layers[layers[-1]].type != FULL
