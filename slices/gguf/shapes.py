"""A GGUF's tensors against its settings: each must be one that llama.cpp asks for, in its shape.

Total: what is unknown, missing or misshapen is named. What is asked for is in `slices.gguf.rules`.
"""

from collections.abc import Collection, Iterator, Mapping

from slices.gguf.header import GGUFHeader
from slices.gguf.layout import GGUFLayer, read_layers, setting
from slices.gguf.rules import MATRICES, VECTORS, Rules

Expected = tuple[tuple[int, ...], bool]  # the shape, contiguous axis first, and whether it must be there


def tensor_problems(header: GGUFHeader, rules: Rules) -> Iterator[str]:
    """What is wrong with the tensors, in sentences, once the settings and layers are sound."""
    found = {tensor.name: tensor for tensor in header.tensors}
    expected = expected_tensors(header, rules, found.keys())
    for name, (shape, required) in expected.items():
        if name not in found:
            if required:
                yield f"tensor {name!r} is missing"
            continue
        tensor = found[name]
        if _padded(tensor.shape) != _padded(shape):
            yield f"tensor {name!r} has the shape {tensor.shape}; its settings ask for {shape}"
        if tensor.type not in (VECTORS if len(shape) == 1 else MATRICES):
            yield f"tensor {name!r} has the ggml type {tensor.type}, which llama.cpp does not run there"
    unknown = found.keys() - expected.keys()
    if unknown:
        yield f"tensor {min(unknown)!r} is none that llama.cpp asks for"


def expected_tensors(header: GGUFHeader, rules: Rules, names: Collection[str]) -> dict[str, Expected]:
    """Every tensor that llama.cpp would take, by name; `names`, those that are, tell which layers route."""
    layers = read_layers(header)
    sizes = _sizes(header)
    expected: dict[str, Expected] = {}
    for template, rule in rules.tensors.items():
        for index in range(len(layers) if "{}" in template else 1):
            layer = layers[index]
            routes = f"blk.{index}.ffn_gate_inp.weight" in names
            required = _required(rule.when, layer, routes, header)
            if required is not None:
                axes = {**sizes, **_layer_sizes(layer)}
                expected[template.format(index)] = tuple(axes[axis] for axis in rule.axes), required
    return expected


def _required(when: str, layer: GGUFLayer, routes: bool, header: GGUFHeader) -> bool | None:
    """Whether a tensor must be there or may be; None if it may not."""
    match when:
        case "own":
            return layer.own
        case "value":
            return layer.own and layer.sliding and not layer.identity
        case "ple":
            return bool(setting(header, "embedding_length_per_layer_input")) or None
        case "full":
            return any(not each.sliding for each in read_layers(header)) or None
        case "moe":
            return routes or None
        case "moe?":
            return False if routes else None
    return when == "always"


def _sizes(header: GGUFHeader) -> Mapping[str, int]:
    """The length of each axis that is the same in all layers."""
    ple = setting(header, "embedding_length_per_layer_input")
    expert = setting(header, "expert_feed_forward_length")
    return {
        "hidden": setting(header, "embedding_length"),
        "vocabulary": header.length("tokenizer.ggml.tokens"),
        "ple": ple,
        "all_ple": ple * setting(header, "block_count"),
        "pairs": setting(header, "attention.key_length") // 2,
        "experts": setting(header, "expert_count"),
        "expert_ffn": expert,
        "expert_gate_up": 2 * expert,
        "one": 1,
    }


def _layer_sizes(layer: GGUFLayer) -> Mapping[str, int]:
    return {
        "head": layer.head,
        "queries": layer.heads * layer.head,
        "keys": layer.kv_heads * layer.head,
        "ffn": layer.ffn,
    }


def _padded(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape + (1,) * (4 - len(shape))
