"""The shape of what a GGUF must say of a family: tensor names, settings, adjusted vectors.

The counterpart of `slices.families`, for llama.cpp. Nothing here knows a family.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slices.anatomy import Anatomy

if TYPE_CHECKING:
    import gguf

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Dialect:
    """What llama.cpp calls a family's parts."""

    arch: str
    names: Mapping[str, str]  # `{}` is the layer's number
    describe: Callable[["gguf.GGUFWriter", Anatomy], None]  # adds the settings, or refuses the slice
    adjust: Callable[[str, Floats, Anatomy], Floats]  # what a vector of this name is stored as
