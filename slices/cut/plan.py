"""The plan of a cut: which layers, rows and neurons stay, what the config must then say, and the size to
the byte. Computed from headers alone; `slices.cut.extract` only carries it out.

An illegal cut is refused here, by the rules in `slices.architecture.constraints`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.architecture import constraints
from slices.architecture.anatomy import Anatomy, Tensor, match, read_anatomy, tensors
from slices.architecture.removal import Removal
from slices.checkpoint import Checkpoint
from slices.cut.identity_layers import Place, arrange, ends_sliding
from slices.cut.slice_config import slice_config
from slices.families.table import FULL
from slices.files.safetensors_header import Entry
from slices.files.safetensors_writer import Layout, Slot, lay_out
from slices.manifest import Parameters
from slices.tokenizer.files import Renumbering

_PREFIX = "model."
Neurons = Mapping[int, NDArray[np.int64]]  # the parent's layer -> its FFN neurons that stay, ascending


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
    layers: tuple[int, ...]  # the parent's
    places: tuple[Place, ...]  # the slice's, spacers included
    rows: NDArray[np.int64] | None  # kept vocabulary rows, None for all
    vocabulary: int
    config: Mapping[str, Any]
    steps: tuple[Step, ...]
    layout: Layout
    parameters: Parameters
    notes: tuple[str, ...]
    repair: constraints.Repair | None = None
    removed: tuple[Removal, ...] = ()  # where layers were chosen by scores: which went, in order

    @property
    def nbytes(self) -> int:
        """Bytes of the weight files, headers and index included."""
        return self.layout.nbytes

    @property
    def ids(self) -> Renumbering | None:
        """How token ids change, None if they do not."""
        return None if self.rows is None else Renumbering(self.rows, self.anatomy.shape.vocab)

    @property
    def spacers(self) -> list[int]:
        """Which layers of the slice are spacers."""
        return [index for index, place in enumerate(self.places) if place.parent is None]


def make_plan(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    layers: tuple[int, ...],
    rows: NDArray[np.int64] | None = None,
    neurons: Neurons | None = None,
    portable: bool = False,
    repair: constraints.Repair | None = None,
    removed: tuple[Removal, ...] = (),
) -> Plan:
    """Plan the slice of `checkpoint` with these layers, vocabulary rows and neurons (None: all of them).

    Args:
        portable: add the spacers without which stock transformers would misread the slice.
        repair, removed: how `layers` came to be what they are, for the record.

    Raises:
        IllegalCut: the architecture cannot express it; says which rule and which layers.
        BadCheckpoint: the headers do not match the config.
    """
    entries, dropped = match(checkpoint, anatomy)
    constraints.check_layers(anatomy, layers)
    if rows is not None:
        constraints.check_rows(anatomy, rows)
    places = arrange(anatomy, layers, portable)
    widths = _widths(anatomy, layers, neurons)
    config = slice_config(anatomy, places, rows, _base_width(anatomy, layers, widths))
    after = read_anatomy(config)
    parents = [None if place.parent is None else anatomy.layers[place.parent] for place in places]
    constraints.check_faithful(parents, after, widths)
    steps = _steps(entries, _Cut(anatomy, places, rows, neurons), after)
    return Plan(
        anatomy=anatomy,
        layers=layers,
        places=places,
        rows=rows,
        vocabulary=anatomy.shape.vocab if rows is None else len(rows),
        config=config,
        steps=tuple(steps),
        layout=lay_out([step.slot for step in steps]),
        parameters=_parameters(steps, after),
        notes=tuple(_notes(anatomy, entries, dropped, places, config, repair)),
        repair=repair,
        removed=removed,
    )


def _widths(anatomy: Anatomy, layers: Sequence[int], neurons: Neurons | None) -> dict[int, int]:
    return {i: anatomy.layers[i].ffn if neurons is None else len(neurons[i]) for i in layers}


def _base_width(anatomy: Anatomy, layers: Sequence[int], widths: Mapping[int, int]) -> int:
    """The `intermediate_size` of the slice; a double-wide layer has twice as much."""
    base = int(anatomy.config["intermediate_size"])
    return widths[layers[0]] * base // anatomy.layers[layers[0]].ffn


@dataclass(frozen=True)
class _Cut:
    """What stays of the parent."""

    anatomy: Anatomy
    places: Sequence[Place]
    rows: NDArray[np.int64] | None
    neurons: Neurons | None

    def taken(self, axis: str, parent: int | None) -> NDArray[np.int64] | None:
        """Which indices of a named axis stay, in the layer `parent` or the whole model; None for all."""
        if axis in ("vocab", "ple_vocab"):
            return self.rows
        if axis == "ffn" and self.neurons is not None and parent is not None:
            return self.neurons[parent]
        whole = [place.parent for place in self.places] == list(range(len(self.anatomy.layers)))
        return self._blocks() if axis == "ple_layers" and not whole else None

    def _blocks(self) -> NDArray[np.int64]:
        """The kept layers' blocks of the packed per-layer embeddings, -1 throughout a spacer's block."""
        width = self.anatomy.shape.ple
        parents = np.array([-1 if p.parent is None else p.parent for p in self.places], dtype=np.int64)
        blocks = parents[:, None] * width + np.arange(width)
        return np.where(parents[:, None] < 0, -1, blocks).reshape(-1)


def _steps(entries: Mapping[str, Entry], cut: _Cut, after: Anatomy) -> list[Step]:
    """One step a tensor of the slice, in the order in which the parent's file holds them."""
    live = [tensor for tensor in tensors(after).values() if not tensor.dead]
    return sorted((_step(entries, cut, tensor) for tensor in live), key=_position)


def _step(entries: Mapping[str, Entry], cut: _Cut, tensor: Tensor) -> Step:
    name, parent = tensor.name, None
    if tensor.layer is not None:
        parent = cut.places[tensor.layer.index].parent
        if parent is None:
            slot = Slot(_PREFIX + name, entries["norm.weight"].dtype, tensor.shape)
            return Step(slot, None, ones=len(tensor.shape) == 1)  # norms and scales are vectors
        name = tensor.rule.name.format(parent)
    rows, columns = (cut.taken(axis, parent) for axis in (*tensor.rule.axes, "none")[:2])
    slot = Slot(_PREFIX + tensor.name, entries[name].dtype, tensor.shape)
    return Step(slot, entries[name], rows, columns)


def _position(step: Step) -> tuple[bool, str, int]:
    """Where the parent holds it; what no parent holds goes last."""
    if step.source is None:
        return True, step.slot.name, 0
    return False, str(step.source.file), step.source.start


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
    places: Sequence[Place],
    config: Mapping[str, Any],
    repair: constraints.Repair | None,
) -> list[str]:
    notes = []
    if repair is not None:
        notes.append(f"the cut that was asked for is illegal; the nearest legal one {repair}")
    if dropped:
        kinds = sorted({anatomy.family.kind_of(name) for name in dropped})
        notes.append(f"{len(dropped)} tensors that are not text are dropped: {', '.join(kinds)}")
    dead = [name for name, tensor in tensors(anatomy).items() if tensor.dead and name in entries]
    if dead:
        notes.append(f"{len(dead)} K/V tensors of layers that share K/V are dropped: they are never executed")
    return [*notes, *_loading_notes(anatomy, places, config)]


def _loading_notes(anatomy: Anatomy, places: Sequence[Place], config: Mapping[str, Any]) -> list[str]:
    """What else must be known to load the slice."""
    spacers = [index for index, place in enumerate(places) if place.parent is None]
    layers = [place.parent for place in places if place.parent is not None]
    if spacers:
        which = " and ".join(map(str, spacers))
        return [f"spacers, which hand their input on, let stock transformers load the slice: layer {which}"]
    if ends_sliding(anatomy, layers):
        return [
            f"the last layer ({layers[-1]}) is sliding, which stock transformers cannot express: the slice "
            f"has model_type {config['model_type']!r} and loads after slices.gemma4_slice.register(); "
            "--portable adds spacers instead"
        ]
    if anatomy.family.ends_full and all(place.type == FULL for place in places):
        return ["no layer is sliding: torch runs that, stock llama.cpp does not without a sliding spacer"]
    return []
