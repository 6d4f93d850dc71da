"""A layer that a cut removes, with what that costs."""

from dataclasses import dataclass

from slices.estimate import Estimate


@dataclass(frozen=True)
class Removal:
    """A layer that goes, and the divergence from the parent once it is gone with all before it."""

    layer: int
    kl: Estimate
