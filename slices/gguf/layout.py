"""A model's layers as its GGUF's settings tell of them, against where llama.cpp looks for their K/V.

llama.cpp finds the K/V that a layer of Gemma 4 shares by position alone: with K layers that have K/V of
their own, sliding layers read layer K - 2 and full ones layer K - 1, whatever lies there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from slices.gguf.header import GGUFHeader

_PATTERN, _SHARED = "attention.sliding_window_pattern", "attention.shared_kv_layers"
_HEADS, _KV_HEADS = "attention.head_count", "attention.head_count_kv"
IDENTITY_LAYERS = "mom.identity_layers"  # indices of the identity layers, whose K/V no layer reads


@dataclass(frozen=True)
class GGUFLayer:
    """One layer. `own`: it has K/V of its own; `identity`: its output is its input; `head`: the head size."""

    sliding: bool
    own: bool
    identity: bool
    heads: int
    kv_heads: int
    head: int
    ffn: int


def setting(header: GGUFHeader, key: str) -> Any:
    """The setting `<architecture>.<key>`; 0 where it is missing."""
    return header.metadata.get(f"{header.metadata.get('general.architecture')}.{key}", 0)


def per_layer(header: GGUFHeader, key: str) -> list[int]:
    """A setting for each layer, which is a number for all or an array."""
    value = setting(header, key)
    return value if isinstance(value, list) else [value] * setting(header, "block_count")


def read_layers(header: GGUFHeader) -> list[GGUFLayer]:
    """The layers that the settings tell of, once `layer_problems` has none."""
    count = setting(header, "block_count")
    pattern = setting(header, _PATTERN)
    slides = [bool(each) for each in pattern] if isinstance(pattern, list) else [False] * count
    full = setting(header, "attention.key_length")
    sizes = {False: full, True: setting(header, "attention.key_length_swa") or full}
    own = count - setting(header, _SHARED)
    identity_layers = header.metadata.get(IDENTITY_LAYERS, [])
    heads, kv_heads, ffn = (per_layer(header, key) for key in (_HEADS, _KV_HEADS, "feed_forward_length"))
    return [
        GGUFLayer(
            sliding=slides[at],
            own=at < own,
            identity=at in identity_layers,
            heads=heads[at],
            kv_heads=kv_heads[at],
            head=sizes[slides[at]],
            ffn=ffn[at],
        )
        for at in range(count)
    ]


def layer_problems(header: GGUFHeader, arch: str) -> Iterator[str]:
    """What is wrong with a Gemma's layers, in sentences, once every setting lies in its range."""
    yield from _pattern(header, arch)
    yield from _head(header, arch, "")
    if arch == "gemma4":
        yield from _head(header, arch, "_swa")
        yield from _sharing(read_layers(header))
        return
    for key in (_HEADS, _KV_HEADS, "feed_forward_length"):
        if len(set(per_layer(header, key))) > 1:
            yield f"{arch}.{key} differs by layer, which llama.cpp does not heed there"


def _pattern(header: GGUFHeader, arch: str) -> Iterator[str]:
    name, count = f"{arch}.{_PATTERN}", setting(header, "block_count")
    kind = header.kinds.get(name)
    if kind in ("[bool]", "[u32]", "[i32]"):
        if header.length(name) != count:
            yield f"{name} has {header.length(name)} values for {count} layers"
        window, slides = setting(header, "attention.sliding_window"), any(setting(header, _PATTERN))
        if slides != bool(window):  # ends the process, or reads every layer as a full one
            names = "some" if slides else "no"
            yield f"{arch}.attention.sliding_window is {window}, but {name} has {names} sliding layers"
    elif arch == "gemma4" or not (kind is None or (kind == "u32" and setting(header, _PATTERN) > 1)):
        yield f"{name} is of the type {kind}; expected an array of bool, one for each layer"


def _head(header: GGUFHeader, arch: str, tail: str) -> Iterator[str]:
    """As many numbers in a value as in a key, and an even part of them turned by position."""
    key, value = (setting(header, f"attention.{kind}_length{tail}") for kind in ("key", "value"))
    # unless told otherwise, llama.cpp turns as many numbers of a sliding layer's head as of a full one's
    turned = setting(header, f"rope.dimension_count{tail}") or setting(header, "rope.dimension_count")
    turned = turned or setting(header, "attention.key_length")
    if key != value or key % 2:
        yield f"{arch}.attention.key_length{tail} is {key} and value_length{tail} {value}; expected one even"
    if turned > key or turned % 2:
        yield f"{arch}.rope.dimension_count{tail} is {turned}; expected an even number up to {key}"


def _sharing(layers: Sequence[GGUFLayer]) -> Iterator[str]:
    own = sum(layer.own for layer in layers)
    if own == len(layers):
        return
    if own < 2:
        yield f"{own} of {len(layers)} layers have K/V of their own; llama.cpp wants 2 where others share it"
    for slides, donor, kind in ((True, own - 2, "sliding"), (False, own - 1, "full")):
        readers = [layer for layer in layers[own:] if layer.sliding == slides]
        meant = [at for at in range(own) if layers[at].sliding == slides and not layers[at].identity]
        if readers and meant[-1:] != [donor]:
            yield (
                f"llama.cpp would have its shared {kind} layers read the K/V of layer {donor}, "
                f"but the last {kind} layer with its own is {meant[-1:] or 'missing'}"
            )
        if any(layer.kv_heads != layers[donor].kv_heads for layer in readers):
            yield f"a shared {kind} layer has another number of K/V heads than layer {donor}, which it reads"
