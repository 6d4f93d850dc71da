"""The anatomy of a model: layers, K/V donors, tensor specifications, parameters by part.

Read from the config alone; `match_tensors` then checks the checkpoint's headers against it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from slices.checkpoint import Checkpoint
from slices.errors import BadCheckpoint, Unsupported
from slices.families.gemma3 import GEMMA3
from slices.families.gemma4 import GEMMA4
from slices.families.table import FULL, SLIDING, Family, Layer, ModelDims, Rule, axis_sizes
from slices.files.safetensors_header import Entry
from slices.manifest import Parameters

FAMILIES = (GEMMA3, GEMMA4)
_COUNTS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
_MAX_COUNT = 2**24


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that the config requires, or (`dead`) that may be stored but is never executed."""

    name: str
    rule: Rule
    layer: Layer | None
    shape: tuple[int, ...]
    dead: bool = False


@dataclass(frozen=True)
class Anatomy:
    """The architecture of a text model, as its config describes it."""

    family: Family
    model_type: str
    config: Mapping[str, Any]  # of the text model
    root_config: Mapping[str, Any]  # config.json as a whole
    dims: ModelDims
    layers: tuple[Layer, ...]

    def of_type(self, kind: str) -> list[int]:
        """Indices of the layers with this attention type."""
        return [layer.index for layer in self.layers if layer.type == kind]

    @property
    def donors(self) -> dict[str, int]:
        """The layer whose K/V the shared layers of each attention type read."""
        return {layer.type: layer.donor for layer in self.layers if layer.donor is not None}

    @cached_property
    def tensors(self) -> dict[str, TensorSpec]:
        """Every tensor the model may have, by its name without prefix."""
        return {spec.name: spec for rule in self.family.read_rules(self.config) for spec in self._specs(rule)}

    def _specs(self, rule: Rule) -> Iterator[TensorSpec]:
        layers: Iterable[Layer | None] = self.layers if "{}" in rule.name else [None]
        for layer in layers:
            live = layer is None or rule.when(layer)
            if live or (layer is not None and rule.dead_when(layer)):
                sizes = axis_sizes(self.dims, layer, len(self.layers))
                shape = tuple(sizes[axis] for axis in rule.axes)
                name = rule.name if layer is None else rule.name.format(layer.index)
                yield TensorSpec(name=name, rule=rule, layer=layer, shape=shape, dead=not live)

    @property
    def sliding(self) -> list[int]:
        """Indices of the sliding-window layers."""
        return self.of_type(SLIDING)

    @property
    def full(self) -> list[int]:
        """Indices of the full-attention layers, windowed or not."""
        return self.of_type(FULL)

    @property
    def windowed(self) -> list[int]:
        """Indices of the full-attention layers that are limited to the sliding window."""
        return [layer.index for layer in self.layers if layer.windowed]


def read_anatomy(config: Mapping[str, Any]) -> Anatomy:
    """The anatomy that a config.json describes, text-only or multimodal.

    Raises:
        Unsupported: the model_type is of no known family.
        BadCheckpoint: a key is missing or makes no sense; it is named.
    """
    stated = config.get("model_type")
    family = next((f for f in FAMILIES if str(stated) in f.model_types), None)
    if family is None:
        known = ", ".join(sorted(t for f in FAMILIES for t in f.model_types))
        raise Unsupported(f"config.json: model_type {stated!r} is not supported; expected one of: {known}")
    text = config.get("text_config", config)
    if not isinstance(text, Mapping):
        raise BadCheckpoint("config.json: 'text_config' is not an object")
    text_type = _text_type(family, str(text.get("model_type", stated)))
    text = {**family.defaults[text_type], **text, "model_type": text_type}
    _check_config(text, config)
    try:
        dims, layers = family.read_dims(text), family.read_layers(text)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadCheckpoint(f"config.json: a value is missing or of the wrong kind: {error}") from None
    _check_dims(dims)
    _check_layers(layers, text)
    return Anatomy(
        family=family, model_type=text_type, config=text, root_config=config, dims=dims, layers=layers
    )


def _text_type(family: Family, stated: str) -> str:
    if stated not in family.model_types:
        raise Unsupported(
            f"config.json: the text model is a {stated!r}; {family.name} has "
            f"{', '.join(sorted(set(family.model_types.values())))}"
        )
    return family.model_types[stated]


def match_tensors(checkpoint: Checkpoint, anatomy: Anatomy) -> tuple[dict[str, Entry], list[str]]:
    """The text tensors of a checkpoint by their name without prefix, and the names of dropped towers.

    Raises:
        BadCheckpoint: a tensor is unknown, missing, or of another shape than the config says.
    """
    expected = anatomy.tensors
    found: dict[str, Entry] = {}
    dropped: list[str] = []
    for entry in checkpoint.entries:
        if entry.name.startswith(anatomy.family.towers) or entry.name in anatomy.family.tied:
            dropped.append(entry.name)
            continue
        name = _strip(entry.name, anatomy.family)
        if name not in expected:
            raise BadCheckpoint(
                f"{entry.file.name}: tensor {entry.name!r} is unknown to {anatomy.family.name}"
            )
        if entry.shape != expected[name].shape:
            raise BadCheckpoint(
                f"{entry.file.name}: tensor {entry.name!r} has shape {list(entry.shape)}, "
                f"but config.json calls for {list(expected[name].shape)}"
            )
        if name in found:
            raise BadCheckpoint(f"tensors {found[name].name!r} and {entry.name!r} are both {name!r}")
        found[name] = entry
    missing = [name for name, tensor in expected.items() if not tensor.dead and name not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadCheckpoint(
            f"{checkpoint.folder}: tensor {missing[0]!r}{more} called for by config.json is missing"
        )
    return found, dropped


def count_parameters(anatomy: Anatomy, present: Iterable[str] | None = None) -> tuple[Parameters, int]:
    """Parameters by part, and how many of the decoder's are dead K/V; all that may be stored by default."""
    expected = anatomy.tensors
    names = expected.keys() if present is None else present
    parts = {"decoder": 0, "per_layer_embedding": 0, "embedding": 0}
    dead = 0
    for name in names:
        tensor = expected[name]
        count = 1
        for side in tensor.shape:
            count *= side
        parts[tensor.rule.part] += count
        dead += count if tensor.dead else 0
    return Parameters(**parts, total=sum(parts.values())), dead


def _strip(name: str, family: Family) -> str:
    for prefix in family.prefixes:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _check_config(text: Mapping[str, Any], root_config: Mapping[str, Any]) -> None:
    for key in _COUNTS:
        value = text.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MAX_COUNT:
            raise BadCheckpoint(f"config.json: expected {key!r} to be a positive number, found {value!r}")
    if text["num_hidden_layers"] > 4096:
        raise BadCheckpoint(f"config.json: {text['num_hidden_layers']} layers are more than any model has")
    if False in (text.get("tie_word_embeddings"), root_config.get("tie_word_embeddings")):
        raise Unsupported(
            "config.json: tie_word_embeddings is false: an output layer of its own is not supported"
        )


def _check_dims(dims: ModelDims) -> None:
    for name, value in vars(dims).items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_COUNT:
            raise BadCheckpoint(f"config.json: expected the {name} size to be a number, found {value!r}")


def _check_layers(layers: tuple[Layer, ...], text: Mapping[str, Any]) -> None:
    types = text.get("layer_types")
    known = isinstance(types, list) and set(map(str, types)) <= {SLIDING, FULL}
    if types is not None and (not known or len(types) != text["num_hidden_layers"]):
        raise BadCheckpoint(
            f"config.json: 'layer_types' must name {text['num_hidden_layers']} layers as "
            f"'{SLIDING}' or '{FULL}', found {_listed(types)}"
        )
    for layer in layers:
        _check_sizes(layer)
    orphan = next((layer for layer in layers if layer.donor == -1), None)
    if orphan is not None:
        raise BadCheckpoint(
            f"config.json: layer {orphan.index} shares K/V, but no earlier {orphan.type} layer has any"
        )


def _check_sizes(layer: Layer) -> None:
    for name in ("head_dim", "heads", "kv_heads", "ffn"):
        value = getattr(layer, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MAX_COUNT:
            raise BadCheckpoint(
                f"config.json: expected the {name} of layer {layer.index} to be a number, found {value!r}"
            )


def _listed(types: object) -> str:
    found = types if isinstance(types, list) else [types]
    return f"{len(found)}: {', '.join(sorted(set(map(str, found))))[:200]}"
