"""The plan of a cut: the kept layers, vocabulary rows and neurons, the resulting config, the exact size.

Computed from headers alone; `slices.cut.extract` only applies it. An invalid cut is refused here, by the
rules in `slices.architecture.constraints`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.architecture import constraints
from slices.architecture.anatomy import Anatomy, TensorSpec, match_tensors, read_anatomy
from slices.architecture.attention import Attention, RopeTheta
from slices.architecture.kv_cache import KvCacheBytes, kv_cache_bytes
from slices.architecture.removal import LayerRemoval
from slices.architecture.window import check_window, windowed
from slices.checkpoint import Checkpoint
from slices.cut.identity_layers import SliceLayer, build_slice_layers
from slices.cut.notes import dropped_notes, loading_notes, repair_note, window_notes
from slices.cut.slice_config import slice_config
from slices.files.safetensors_header import Entry
from slices.files.safetensors_writer import Layout, Slot, lay_out
from slices.manifest import Parameters
from slices.tokenizer.files import TokenIdMap

_PREFIX = "model."
NeuronIndices = Mapping[int, NDArray[np.int64]]  # parent layer -> its kept FFN neurons, ascending


@dataclass(frozen=True)
class TensorPlan:
    """One tensor of the slice: its source in the parent and the rows and columns to keep.

    Rows and columns are the parent's, ascending, None for all; -1 stands for one of zeros, which an identity
    layer needs. A tensor without a source belongs to an identity layer: zeros throughout, or ones.
    """

    slot: Slot
    source: Entry | None
    rows: NDArray[np.int64] | None = None
    columns: NDArray[np.int64] | None = None
    ones: bool = False


@dataclass(frozen=True)
class Selection:
    """What a cut keeps of the parent.

    Args:
        layers: ascending indices of the parent's layers.
        rows: kept vocabulary rows, ascending, shape (kept,); None for all.
        neurons: kept FFN neurons by layer; None for all.
        portable: add the identity layers without which stock transformers would misread the slice.
        theta: that of full-attention layers limited to the sliding window; None keeps full attention.
        repair: how `layers` was changed to be valid.
        removed: where layers were chosen by scores, which were removed, in order.
    """

    layers: tuple[int, ...]
    rows: NDArray[np.int64] | None = None
    neurons: NeuronIndices | None = None
    portable: bool = False
    theta: RopeTheta | None = None
    repair: constraints.Repair | None = None
    removed: tuple[LayerRemoval, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything that will be written, before anything is."""

    anatomy: Anatomy  # the parent's
    selection: Selection
    slice_layers: tuple[SliceLayer, ...]
    config: Mapping[str, Any]
    tensors: tuple[TensorPlan, ...]
    layout: Layout
    parameters: Parameters
    notes: tuple[str, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """The parent's layers that are kept."""
        return self.selection.layers

    @property
    def vocabulary(self) -> int:
        """Rows of the slice's embedding."""
        return self.anatomy.dims.vocab if self.selection.rows is None else len(self.selection.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the weight files, headers and index included."""
        return self.layout.nbytes

    @property
    def token_ids(self) -> TokenIdMap | None:
        """The parent's token ids to the slice's, None if they do not change."""
        rows = self.selection.rows
        return None if rows is None else TokenIdMap(rows, self.anatomy.dims.vocab)

    @property
    def attention(self) -> Attention:
        """What became of the full-attention layers."""
        return Attention.KEEP if self.selection.theta is None else Attention.SLIDING

    @property
    def windowed_layers(self) -> list[int]:
        """The kept layers of the parent that were limited to the sliding window."""
        kept = [self.anatomy.layers[index] for index in self.layers]
        return [layer.index for layer in kept if windowed(layer, self.selection.theta) != layer]

    @property
    def kv_cache(self) -> KvCacheBytes:
        """Float16 K/V cache of the slice, in bytes a token."""
        return kv_cache_bytes(read_anatomy(self.config))

    @property
    def identity_layers(self) -> list[int]:
        """Indices of the slice's identity layers."""
        return [index for index, layer in enumerate(self.slice_layers) if layer.is_identity]


def check_cut(checkpoint: Checkpoint, anatomy: Anatomy, selection: Selection) -> None:
    """Refuse an invalid cut without planning its tensors: for callers with hours of work ahead.

    Raises:
        InvalidCut, BadCheckpoint: as `make_plan`.
    """
    match_tensors(checkpoint, anatomy)
    _configure(anatomy, selection)


def make_plan(checkpoint: Checkpoint, anatomy: Anatomy, selection: Selection) -> Plan:
    """Plan the slice of `checkpoint` that keeps `selection`.

    Raises:
        InvalidCut: the architecture cannot express it; names the rule and the layers.
        BadCheckpoint: the headers do not match the config.
    """
    entries, dropped = match_tensors(checkpoint, anatomy)
    slice_layers, config, after = _configure(anatomy, selection)
    tensors = _tensors(entries, _Cut(anatomy, selection, slice_layers), after)
    return Plan(
        anatomy=anatomy,
        selection=selection,
        slice_layers=slice_layers,
        config=config,
        tensors=tuple(tensors),
        layout=lay_out([tensor.slot for tensor in tensors]),
        parameters=_parameters(tensors, after),
        notes=(
            *([] if selection.repair is None else [repair_note(selection.repair)]),
            *dropped_notes(anatomy, entries, dropped),
            *loading_notes(anatomy, slice_layers, config),
            *window_notes(anatomy, slice_layers),
        ),
    )


def _configure(
    anatomy: Anatomy, selection: Selection
) -> tuple[tuple[SliceLayer, ...], dict[str, Any], Anatomy]:
    """The slice's layers, its config, and the anatomy that this config describes; refuses an invalid cut."""
    constraints.check_layers(anatomy, selection.layers)
    if selection.rows is not None:
        constraints.check_rows(anatomy, selection.rows)
    check_window(anatomy, selection.layers, selection.theta, selection.portable)
    slice_layers = build_slice_layers(anatomy, selection.layers, selection.portable, selection.theta)
    widths = _widths(anatomy, selection)
    config = slice_config(
        anatomy, slice_layers, selection.rows, _intermediate_size(anatomy, selection.layers, widths)
    )
    after = read_anatomy(config)
    parents = [
        None if layer.parent is None else windowed(anatomy.layers[layer.parent], selection.theta)
        for layer in slice_layers
    ]
    constraints.check_faithful(parents, after, widths)
    return slice_layers, config, after


def _widths(anatomy: Anatomy, selection: Selection) -> dict[int, int]:
    """The FFN width of each kept layer."""
    neurons = selection.neurons
    return {i: anatomy.layers[i].ffn if neurons is None else len(neurons[i]) for i in selection.layers}


def _intermediate_size(anatomy: Anatomy, layers: Sequence[int], widths: Mapping[int, int]) -> int:
    """The slice's `intermediate_size`; a double-wide layer has twice as much."""
    parent = int(anatomy.config["intermediate_size"])
    return widths[layers[0]] * parent // anatomy.layers[layers[0]].ffn


@dataclass(frozen=True)
class _Cut:
    """A selection, applied to the parent's anatomy."""

    anatomy: Anatomy
    selection: Selection
    slice_layers: Sequence[SliceLayer]

    def kept_indices(self, axis: str, layer: int | None) -> NDArray[np.int64] | None:
        """The kept indices of a named axis, in the parent's `layer` or the whole model; None for all."""
        if axis in ("vocab", "ple_vocab"):
            return self.selection.rows
        if axis == "ffn" and self.selection.neurons is not None and layer is not None:
            return self.selection.neurons[layer]
        if axis != "ple_layers":
            return None
        unchanged = [each.parent for each in self.slice_layers] == list(range(len(self.anatomy.layers)))
        return None if unchanged else self._per_layer_blocks()

    def _per_layer_blocks(self) -> NDArray[np.int64]:
        """The kept layers' blocks of the packed per-layer embeddings, -1 throughout an identity layer's."""
        width = self.anatomy.dims.ple
        parents = np.array([-1 if each.parent is None else each.parent for each in self.slice_layers])
        blocks = parents[:, None] * width + np.arange(width)
        return np.where(parents[:, None] < 0, -1, blocks).reshape(-1).astype(np.int64)


def _tensors(entries: Mapping[str, Entry], cut: _Cut, after: Anatomy) -> list[TensorPlan]:
    """Each tensor of the slice, in the order in which the parent's files hold them."""
    live = [spec for spec in after.tensors.values() if not spec.dead]
    return sorted((_tensor(entries, cut, spec) for spec in live), key=_source_position)


def _tensor(entries: Mapping[str, Entry], cut: _Cut, spec: TensorSpec) -> TensorPlan:
    name, parent = spec.name, None
    if spec.layer is not None:
        parent = cut.slice_layers[spec.layer.index].parent
        if parent is None:
            slot = Slot(_PREFIX + name, entries["norm.weight"].dtype, spec.shape)
            return TensorPlan(slot, None, ones=len(spec.shape) == 1)  # norms and scales are vectors
        name = spec.rule.name.format(parent)
    rows, columns = (cut.kept_indices(axis, parent) for axis in (*spec.rule.axes, "none")[:2])
    slot = Slot(_PREFIX + spec.name, entries[name].dtype, spec.shape)
    return TensorPlan(slot=slot, source=entries[name], rows=rows, columns=columns)


def _source_position(tensor: TensorPlan) -> tuple[bool, str, int]:
    """Where the parent's files hold it; what no parent holds sorts last."""
    if tensor.source is None:
        return True, tensor.slot.name, 0
    return False, str(tensor.source.file), tensor.source.start


def _parameters(tensors: Sequence[TensorPlan], after: Anatomy) -> Parameters:
    parts = {"decoder": 0, "per_layer_embedding": 0, "embedding": 0}
    for tensor in tensors:
        part = after.tensors[tensor.slot.name.removeprefix(_PREFIX)].rule.part
        parts[part] += math.prod(tensor.slot.shape)
    return Parameters(**parts, total=sum(parts.values()))
