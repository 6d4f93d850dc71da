"""Hidden states: what enters each layer of a slice, held against what enters the same layer of its parent.

A slice that lost layers gives those behind a gap other inputs than its parent did. Drawing the two together,
as the parent's own norm shows them to the layer, tells every layer from near what the output layer tells it
from afar. Distilling hidden states: FitNets, Romero et al., 2015, arXiv 1412.6550; in pruned language models:
Minitron, Muralidharan et al., 2024, arXiv 2407.14679.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slices.architecture.anatomy import Anatomy
from slices.cut.identity_layers import arrange
from slices.device import Device
from slices.runtimes.decoder import capture_inputs


@dataclass(frozen=True)
class States:
    """What a model made of rows of tokens, each (positions, hidden): before some layers, and at the end."""

    entering: tuple[Any, ...]
    last: Any


def same_layers(parent: Anatomy, layers: Sequence[int], portable: bool) -> tuple[list[int], list[int]]:
    """The layers behind the first gap as the slice counts them, and as its parent does.

    What enters the layers before it is the same in both.

    Args:
        layers: the parent's that the slice kept; with `portable` it may have spacers between them.
    """
    places = enumerate(arrange(parent, layers, portable))
    kept = [(own, place.parent) for own, place in places if place.parent is not None]
    behind = [(own, theirs) for number, (own, theirs) in enumerate(kept) if number != theirs]
    return [own for own, _ in behind], [theirs for _, theirs in behind]


def read(model: Any, layers: Sequence[Any], device: Device, tokens: Any) -> States:
    """Run a model over rows of tokens (rows, context), noting what enters some of its layers."""
    with capture_inputs(layers) as seen, device.autocast():
        last = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    return States(tuple(each.flatten(0, 1) for each in seen), last.flatten(0, 1))


def apart(ours: States, theirs: States, norms: Sequence[Any]) -> Any:
    """How far the states of two models are apart: |a - b|² / |b|², the mean over positions and layers.

    Args:
        norms: what each entering state is shown through, one a layer; the last states are taken as they are.
    """
    shown = [(norm(a), norm(b)) for norm, a, b in zip(norms, ours.entering, theirs.entering, strict=True)]
    gaps = [_relative(a, b) for a, b in [*shown, (ours.last, theirs.last)]]
    return sum(gaps[1:], gaps[0]) / len(gaps)


def _relative(ours: Any, theirs: Any) -> Any:
    ours, theirs = ours.float(), theirs.float()
    return ((ours - theirs).square().sum(dim=-1) / theirs.square().sum(dim=-1)).mean()
