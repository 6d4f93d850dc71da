"""A removed layer, with the KL of its removal."""

from dataclasses import dataclass

from slices.estimate import Estimate


@dataclass(frozen=True)
class LayerRemoval:
    """A layer, and the KL to the parent (nats per token) once it and all earlier ones are removed."""

    layer: int
    kl: Estimate
