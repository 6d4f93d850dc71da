"""Notes for the user on a plan: how it was repaired, what it drops, what is needed to load it."""

from collections.abc import Mapping, Sequence
from typing import Any

from slices.architecture.anatomy import Anatomy
from slices.architecture.constraints import Repair
from slices.cut.identity_layers import SliceLayer, ends_sliding
from slices.families.table import FULL
from slices.files.safetensors_header import Entry


def repair_note(repair: Repair) -> str:
    """How `--repair` changed the requested layers."""
    return f"the requested cut is invalid; the nearest valid one {repair}"


def dropped_notes(anatomy: Anatomy, entries: Mapping[str, Entry], dropped: Sequence[str]) -> list[str]:
    """Stored tensors that no slice holds: other modalities, and K/V that is never executed."""
    notes = []
    if dropped:
        kinds = sorted({anatomy.family.modality_of(name) for name in dropped})
        notes.append(f"{len(dropped)} tensors that are not text are dropped: {', '.join(kinds)}")
    dead = [name for name, spec in anatomy.tensors.items() if spec.dead and name in entries]
    if dead:
        notes.append(f"{len(dead)} K/V tensors of layers that share K/V are dropped: they are never executed")
    return notes


def window_notes(anatomy: Anatomy, slice_layers: Sequence[SliceLayer]) -> list[str]:
    """Which full-attention layers became sliding ones, or are limited to the sliding window."""
    kept = [layer for layer in slice_layers if layer.parent is not None]
    sliding = [each.parent for each in kept if each.type != anatomy.layers[each.parent or 0].type]
    windowed = [each.parent for each in kept if each.windowed]
    window, notes = anatomy.dims.sliding_window, []
    if sliding:
        notes.append(
            f"full-attention layers {', '.join(map(str, sliding))} are sliding layers, with a window of "
            f"{window} tokens and the local rotary theta"
        )
    if windowed:
        notes.append(
            f"full-attention layers {', '.join(map(str, windowed))} are limited to the window of {window} "
            "tokens and keep their rotary theta: only torch runs that, once slices.slice_classes.register() "
            "has been called"
        )
    return notes


def loading_notes(
    anatomy: Anatomy, slice_layers: Sequence[SliceLayer], config: Mapping[str, Any]
) -> list[str]:
    """What is needed to load the slice."""
    identity = [str(index) for index, layer in enumerate(slice_layers) if layer.is_identity]
    layers = [layer.parent for layer in slice_layers if layer.parent is not None]
    if identity:
        return [f"identity layers let stock transformers load the slice: layer {' and '.join(identity)}"]
    if ends_sliding(anatomy, layers):
        return [
            f"the last layer ({layers[-1]}) is sliding, which stock transformers cannot express: the slice "
            f"has model_type {config['model_type']!r} and loads after slices.slice_classes.register(); "
            "--portable adds identity layers instead"
        ]
    if anatomy.family.forced_full_types and all(layer.type == FULL for layer in slice_layers):
        return [
            "no layer is sliding: torch runs that, stock llama.cpp does not without a sliding identity layer"
        ]
    return []
