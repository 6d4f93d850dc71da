"""Hidden-state distillation: layer inputs of a slice are trained toward those of the same parent layers.

Removing layers shifts the inputs of every layer behind the gap. The loss compares them after the parent's
own input norm, so that every layer gets a direct gradient and not only the one through the output layer.
FitNets, Romero et al., 2015, arXiv 1412.6550; for pruned language models: Minitron, Muralidharan et al.,
2024, arXiv 2407.14679.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slices.architecture.anatomy import Anatomy
from slices.cut.identity_layers import build_slice_layers
from slices.device import Device
from slices.runtimes.decoder import capture_inputs


@dataclass(frozen=True)
class HiddenStates:
    """Hidden states of a forward pass, each (positions, hidden): inputs of some layers, and the last one."""

    layer_inputs: tuple[Any, ...]
    last: Any


def matching_layers(
    parent: Anatomy, layers: Sequence[int], portable: bool, windowed: Sequence[int] = ()
) -> tuple[list[int], list[int]]:
    """The layers behind the first change, by their indices in the slice and in its parent.

    The inputs of the layers before it are the same in both.

    Args:
        layers: the parent's layers that the slice kept; `portable` adds identity layers between them.
        windowed: those of them that were limited to the sliding window.
    """
    arranged = enumerate(build_slice_layers(parent, layers, portable))
    kept = [(index, layer.parent) for index, layer in arranged if layer.parent is not None]
    first = min(windowed, default=len(parent.layers))
    behind = [(i, theirs) for number, (i, theirs) in enumerate(kept) if number != theirs or theirs > first]
    return [index for index, _ in behind], [theirs for _, theirs in behind]


def forward_hidden_states(model: Any, layers: Sequence[Any], device: Device, tokens: Any) -> HiddenStates:
    """Run `model` over token ids (rows, row_tokens), capturing the inputs of `layers`; rows are flattened."""
    with capture_inputs(layers) as captured, device.autocast():
        last = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    return HiddenStates(tuple(each.flatten(0, 1) for each in captured), last.flatten(0, 1))


def hidden_state_loss(student: HiddenStates, teacher: HiddenStates, norms: Sequence[Any]) -> Any:
    """Relative squared error |s - t|² / |t|², the mean over positions and layers; a scalar tensor.

    Args:
        norms: the teacher's input norm of each layer, applied to both; the last states are compared
            as they are.
    """
    pairs = zip(norms, student.layer_inputs, teacher.layer_inputs, strict=True)
    normed = [(norm(ours), norm(theirs)) for norm, ours, theirs in pairs]
    errors = [_relative_error(ours, theirs) for ours, theirs in [*normed, (student.last, teacher.last)]]
    return sum(errors[1:], errors[0]) / len(errors)


def _relative_error(student: Any, teacher: Any) -> Any:
    student, teacher = student.float(), teacher.float()
    return ((student - teacher).square().sum(dim=-1) / teacher.square().sum(dim=-1)).mean()
