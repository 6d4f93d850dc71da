"""The plan of a cut: which layers and rows stay, what the config must then say, and the size to the byte.

Computed from headers alone; `slices.extract` only carries it out. An illegal cut is refused here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.anatomy import Anatomy, match, read_anatomy, tensors
from slices.checkpoint import Checkpoint
from slices.errors import IllegalCut, Unsupported
from slices.families.gemma4 import GEMMA4, SLICE_TYPE, overrides
from slices.families.table import FULL, SLIDING, Layer
from slices.headers import Entry
from slices.manifest import Parameters
from slices.tokenizer import Renumbering, renumber_config
from slices.writer import Layout, Slot, lay_out

_PREFIX = "model."


@dataclass(frozen=True)
class Step:
    """One tensor of the slice: where it comes from and which of its rows and columns stay.

    Rows and columns are the parent's, ascending, None for all; -1 stands for one of zeros, which a spacer
    layer needs. A tensor without a source is a spacer's own: zeros throughout, or ones.
    """

    slot: Slot
    source: Entry | None
    rows: NDArray[np.int64] | None = None
    columns: NDArray[np.int64] | None = None
    ones: bool = False


@dataclass(frozen=True)
class Plan:
    """Everything that will be written, before anything is."""

    anatomy: Anatomy
    layers: tuple[int, ...]
    rows: NDArray[np.int64] | None  # kept vocabulary rows, None for all
    vocabulary: int
    config: Mapping[str, Any]
    steps: tuple[Step, ...]
    layout: Layout
    parameters: Parameters
    notes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the weight files, headers and index included."""
        return self.layout.nbytes

    @property
    def ids(self) -> Renumbering | None:
        """How token ids change, None if they do not."""
        return None if self.rows is None else Renumbering(self.rows, self.anatomy.shape.vocab)


def make_plan(
    checkpoint: Checkpoint, anatomy: Anatomy, layers: tuple[int, ...], rows: NDArray[np.int64] | None
) -> Plan:
    """Plan the slice of `checkpoint` with these layers and vocabulary rows.

    Raises:
        IllegalCut: the architecture cannot express it; says which rule and which layers.
        BadCheckpoint: the headers do not match the config.
    """
    entries, dropped = match(checkpoint, anatomy)
    check_legal(anatomy, layers)
    config = slice_config(anatomy, layers, rows)
    after = read_anatomy(config)
    steps = _steps(entries, anatomy, after, layers, rows)
    layout = lay_out([step.slot for step in steps])
    vocabulary = anatomy.shape.vocab if rows is None else len(rows)
    notes = _notes(anatomy, entries, dropped, layers, config)
    return Plan(
        anatomy,
        layers,
        rows,
        vocabulary,
        config,
        tuple(steps),
        layout,
        _parameters(steps, after),
        tuple(notes),
    )


def check_legal(anatomy: Anatomy, layers: tuple[int, ...]) -> None:
    """Refuse a set of layers whose shared K/V would come from the wrong layer.

    Raises:
        IllegalCut: a kept layer shares the K/V of a donor that is not kept.
    """
    kept = [anatomy.layers[i] for i in layers]
    for layer in kept:
        if layer.donor is not None and layer.donor not in layers:
            sharers = [other.index for other in kept if other.donor == layer.donor]
            raise IllegalCut(
                f"layers {_join(sharers)} share the K/V of layer {layer.donor}, which the cut drops: "
                f"keep layer {layer.donor}, or drop them too"
            )
    if anatomy.model_type == "gemma4_unified_text" and kept[-1].type == SLIDING:
        raise Unsupported(
            "a gemma4_unified slice whose last layer is sliding is not supported yet: keep a full last layer"
        )


def slice_config(anatomy: Anatomy, layers: tuple[int, ...], rows: NDArray[np.int64] | None) -> dict[str, Any]:
    """The text-only config.json of the slice."""
    kept = [anatomy.layers[i] for i in layers]
    config = dict(anatomy.config)
    text_type = _text_type(anatomy, kept)
    config |= {
        "model_type": text_type,
        "architectures": [anatomy.family.architectures[text_type]],
        "num_hidden_layers": len(kept),
        "layer_types": [layer.type for layer in kept],
        "tie_word_embeddings": True,
    }
    if "eos_token_id" in anatomy.outer:
        config["eos_token_id"] = anatomy.outer["eos_token_id"]
    if anatomy.family is GEMMA4:
        config |= _gemma4_keys(anatomy, kept)
    if rows is not None:
        config = renumber_config(config, Renumbering(rows, anatomy.shape.vocab))
        config["vocab_size"] = len(rows)
        if anatomy.shape.ple:
            config["vocab_size_per_layer_input"] = len(rows)
    return config


def _text_type(anatomy: Anatomy, kept: list[Layer]) -> str:
    """The slice's model_type: the parent's, unless transformers would turn its last layer into a full one."""
    text_type = anatomy.family.model_types[anatomy.model_type]
    if text_type in ("gemma4_text", SLICE_TYPE):
        return "gemma4_text" if kept[-1].type == FULL else SLICE_TYPE
    return text_type


def _gemma4_keys(anatomy: Anatomy, kept: list[Layer]) -> dict[str, Any]:
    types = [layer.type for layer in anatomy.layers]
    special = overrides(anatomy.config, [str(kind) for kind in types])
    return {
        "num_kv_shared_layers": sum(layer.shared for layer in kept),
        "per_layer_config": {
            str(new): special[layer.index] for new, layer in enumerate(kept) if layer.index in special
        },
    }


def _steps(
    entries: Mapping[str, Entry],
    anatomy: Anatomy,
    after: Anatomy,
    layers: tuple[int, ...],
    rows: NDArray[np.int64] | None,
) -> list[Step]:
    """One step a tensor of the slice, in the order in which the parent's file holds them."""
    steps = []
    for name, tensor in tensors(after).items():
        if tensor.dead:
            continue
        old = name if tensor.layer is None else tensor.rule.name.format(layers[tensor.layer.index])
        taken = [_taken(axis, anatomy, layers, rows) for axis in (*tensor.rule.axes, "none")[:2]]
        slot = Slot(_PREFIX + name, entries[old].dtype, tensor.shape)
        steps.append(Step(slot, entries[old], taken[0], taken[1]))
    return sorted(steps, key=_position)


def _position(step: Step) -> tuple[bool, str, int]:
    """Where the parent holds it; what no parent holds goes last."""
    if step.source is None:
        return True, step.slot.name, 0
    return False, str(step.source.file), step.source.start


def _taken(
    axis: str, anatomy: Anatomy, layers: tuple[int, ...], rows: NDArray[np.int64] | None
) -> NDArray[np.int64] | None:
    """Which indices of a named axis stay; None for all."""
    if axis in ("vocab", "ple_vocab"):
        return rows
    if axis == "ple_layers" and len(layers) < len(anatomy.layers):
        width = anatomy.shape.ple
        return (np.array(layers, dtype=np.int64)[:, None] * width + np.arange(width)).reshape(-1)
    return None


def _parameters(steps: list[Step], after: Anatomy) -> Parameters:
    parts = {"decoder": 0, "per_layer_embedding": 0, "embedding": 0}
    known = tensors(after)
    for step in steps:
        parts[known[step.slot.name.removeprefix(_PREFIX)].rule.part] += int(
            np.prod(step.slot.shape, dtype=np.int64)
        )
    return Parameters(**parts, total=sum(parts.values()))


def _notes(
    anatomy: Anatomy,
    entries: Mapping[str, Entry],
    dropped: list[str],
    layers: tuple[int, ...],
    config: Mapping[str, Any],
) -> list[str]:
    notes = []
    if dropped:
        notes.append(f"{len(dropped)} tensors that are not text (vision, audio, tied copies) are dropped")
    dead = [name for name, tensor in tensors(anatomy).items() if tensor.dead and name in entries]
    if dead:
        notes.append(f"{len(dead)} K/V tensors of layers that share K/V are dropped: they are never executed")
    if config["model_type"] == SLICE_TYPE:
        notes.append(
            f"the last layer ({layers[-1]}) is sliding, which stock transformers cannot express: "
            f"the slice has model_type {SLICE_TYPE!r} and loads after slices.gemma4_slice.register()"
        )
    return notes


def plan_json(config: Mapping[str, Any]) -> bytes:
    """config.json as bytes."""
    return json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n"


def _join(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
