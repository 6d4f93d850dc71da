"""A GGUF before llama.cpp sees it: does it say all it must, and do its tensors fit what it says?

llama.cpp answers some files by ending the process, and others by quietly reading something else; both are
looked for here. Total for Gemma 3 and 4, as `slices.gguf.rules` tells of them; other architectures get what
holds for all. Reads no weights, and runs nothing: `slices.runtimes.load_test` tries a file out.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from slices.errors import BadCheckpoint
from slices.gguf.header import GGUFHeader, read_gguf_header
from slices.gguf.layout import IDENTITY_LAYERS, layer_problems, per_layer, setting
from slices.gguf.rules import ANY, FLOATS, MATRICES, MOST_LAYERS, NO_MATRIX, RULES, Number
from slices.gguf.shapes import tensor_problems
from slices.gguf.tokens import token_problems

_SCALINGS = ("none", "linear")  # how positions may be scaled; an unknown word ends the process
_OLD_IDENTITY_LAYERS = "mom.spacers"
_TEXTS = ("general.architecture", "general.name", "tokenizer.ggml.model", "tokenizer.ggml.pre")


def check_gguf(path: Path) -> GGUFHeader:
    """Read the header of a GGUF file and hold it against what llama.cpp takes for granted.

    Raises:
        NotFound: there is no such file.
        BadCheckpoint: it is damaged, or llama.cpp would abort on it or misread it; the message says where.
    """
    header = read_gguf_header(path)
    try:
        for problem in problems(path, header):
            raise BadCheckpoint(f"{path}: {problem}; make or fetch the file again")
    except (struct.error, OSError, ValueError) as error:
        raise BadCheckpoint(f"{path}: it changed while it was read ({error}); try again") from None
    return header


def problems(path: Path, header: GGUFHeader) -> Iterator[str]:
    """What is wrong with the file, in sentences. Take the first only: later rules build on earlier ones."""
    yield from _file(header)
    arch = header.metadata["general.architecture"]
    rules = RULES.get(arch)
    yield from _numbers(header, rules.numbers if rules else ANY)
    yield from _context(header, arch)
    yield from _heads(header)
    yield from _experts(header)
    yield from token_problems(path, header)
    yield from _types(header)
    if rules is None:
        return
    for key in (key for key in rules.forbidden_keys if f"{arch}.{key}" in header.kinds):
        yield f"{arch}.{key} is there, which no {arch} has"
    yield from layer_problems(header, arch)
    yield from tensor_problems(header, rules)


def _file(header: GGUFHeader) -> Iterator[str]:
    for key in _TEXTS:
        if header.kinds.get(key, "str") != "str":
            yield f"{key} is {header.metadata[key]!r}; expected a text"
    if not header.metadata.get("general.architecture"):
        yield "general.architecture is missing"
    if header.metadata.get("split.count", 0) not in (0, 1):
        yield "it is one part of several (split.count); join them first"
    if _OLD_IDENTITY_LAYERS in header.kinds:
        yield f"it has {_OLD_IDENTITY_LAYERS}, which an older mom wrote, not {IDENTITY_LAYERS}"
    if (
        header.kinds.get(IDENTITY_LAYERS, "[i32]") not in ("[i32]", "[u32]")
        or header.length(IDENTITY_LAYERS) > MOST_LAYERS
    ):
        yield f"{IDENTITY_LAYERS} is {header.metadata[IDENTITY_LAYERS]!r}; expected an array of layer numbers"
    scaling = setting(header, "rope.scaling.type")
    if scaling not in (0, *_SCALINGS):
        yield f"rope.scaling.type is {scaling!r}; expected one of {', '.join(_SCALINGS)}"


def _numbers(header: GGUFHeader, numbers: Mapping[str, Number]) -> Iterator[str]:
    """Each setting is there if it must be, of the type that llama.cpp reads, and within its range."""
    for key, rule in numbers.items():
        name = f"{header.metadata['general.architecture']}.{key}"
        kind = header.kinds.get(name)
        if kind is None:
            if rule.required:
                yield f"{name} is missing"
            continue
        listed = rule.per_layer and kind in ("[u32]", "[i32]")
        if listed and header.length(name) != setting(header, "block_count"):
            yield f"{name} has {header.length(name)} values for {setting(header, 'block_count')} layers"
        if not listed and kind != rule.kind:
            yield f"{name} is of the type {kind}; expected {rule.kind}"
        values = header.metadata[name] if listed else [header.metadata[name]]
        wrong = next((value for value in values if not rule.low <= value <= rule.high), None)
        if wrong is not None:
            yield f"{name} is {wrong}; expected {rule.low:g} to {rule.high:g}"


def _context(header: GGUFHeader, arch: str) -> Iterator[str]:
    """Below 512 tokens llama.cpp's batches do not fit a context that it rounds up to a multiple of 256."""
    length = setting(header, "context_length")
    if length < 512 and length != 256:
        yield f"{arch}.context_length is {length}; expected 256, or 512 and more"


def _heads(header: GGUFHeader) -> Iterator[str]:
    """Every layer's heads are shared out evenly over its K/V heads; what is turned, is turned in pairs."""
    for key in ("attention.key_length", "rope.dimension_count"):
        if setting(header, key) % 2:
            yield f"{key} is {setting(header, key)}; expected an even number"
    both = (per_layer(header, f"attention.head_count{tail}") for tail in ("", "_kv"))
    for layer, (heads, kv_heads) in enumerate(zip(*both, strict=True)):
        if kv_heads and heads % kv_heads:
            yield f"layer {layer} has {heads} heads for {kv_heads} K/V heads; expected a multiple"


def _experts(header: GGUFHeader) -> Iterator[str]:
    """As many experts asked as there are, or fewer; none asked of none."""
    count, used = setting(header, "expert_count"), per_layer(header, "expert_used_count")
    if not min(count, 1) <= max(used) <= count:
        yield f"{max(used)} of {count} experts are used"
    groups, asked = (setting(header, f"expert_group_{key}") for key in ("count", "used_count"))
    if groups and (groups >= count or (groups > 1 and (count % groups or not 0 < asked < groups))):
        yield f"{asked} of {groups} groups of {count} experts are used; expected fewer groups, all of a size"


def _types(header: GGUFHeader) -> Iterator[str]:
    """Types that no architecture has: llama.cpp multiplies no whole numbers, and adds nothing in blocks."""
    for tensor in header.tensors:
        if tensor.type in (NO_MATRIX if len(tensor.shape) > 1 else MATRICES - FLOATS):
            yield f"tensor {tensor.name!r} has the ggml type {tensor.type}, which it cannot have"
