"""The request of a healing run, and its settings where they depend on the machine or the slice."""

from dataclasses import dataclass, replace
from pathlib import Path

from slices.device import choose_device
from slices.heal.compiled import can_compile
from slices.heal.settings import HealConfig
from slices.text.corpus import Corpus


@dataclass(frozen=True)
class HealRequest:
    """A healing run: which slice, on which text, by which hyperparameters, written where.

    Attributes:
        target: the folder of the healed slice; its name becomes the slice's.
        teacher: a file of `save_teacher`; None runs the parent.
    """

    slice: Path
    target: Path
    text: Corpus
    config: HealConfig
    teacher: Path | None = None
    device: str = "auto"
    threads: int | None = None
    force: bool = False


def resolve_compile(request: HealRequest, long_run: bool) -> HealRequest:
    """The request with `compiled` decided: as configured, else compiled if the run is long and torch can."""
    if request.config.compiled is not None:
        return request
    device = choose_device(request.device, request.config.precision, request.threads).name
    return replace(request, config=replace(request.config, compiled=long_run and can_compile(device)))


def resolve_defaults(request: HealRequest, kl: float) -> HealRequest:
    """The request with open hyperparameters filled in by the slice's KL to its parent (nats per token)."""
    config = request.config.with_defaults(kl)
    return replace(request, config=replace(config, hidden_state_weight=0.0) if request.teacher else config)
