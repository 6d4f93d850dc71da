"""The shape of what a GGUF must say of a family: tensor names, blocks, settings, adjusted vectors.

The counterpart of `slices.families`, for llama.cpp. Nothing here knows a family.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slices.architecture.anatomy import Anatomy
from slices.families.table import Layer

if TYPE_CHECKING:
    import gguf

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Block:
    """One block of the GGUF: `source` is the slice's layer that it is, None for an identity layer."""

    source: int | None
    layer: Layer


Blocks = tuple[Block, ...]


def as_they_are(anatomy: Anatomy) -> Blocks:
    """A block for every layer, and no more."""
    return tuple(Block(layer.index, layer) for layer in anatomy.layers)


def nothing(anatomy: Anatomy, blocks: Blocks) -> dict[str, Floats]:
    """No tensors beyond those of the checkpoint."""
    return {}


@dataclass(frozen=True)
class Dialect:
    """What llama.cpp calls a family's parts."""

    arch: str
    names: Mapping[str, str]  # `{}` is the layer's number
    describe: Callable[["gguf.GGUFWriter", Anatomy, Blocks], None]  # adds the settings, or refuses the slice
    adjust: Callable[[str, Floats, Anatomy], Floats]  # what a vector of this name is stored as
    arrange: Callable[[Anatomy], Blocks] = as_they_are  # the blocks in order, or refuses the slice
    vectors: Callable[[Anatomy, Blocks], dict[str, Floats]] = nothing  # what only the GGUF has, by its name
    residual_norms: frozenset[str] = frozenset()  # norms that read hidden states; none: no padding
    writes_merges: bool = False  # whether llama.cpp's tokenizer for it always works by merges
