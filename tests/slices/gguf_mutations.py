"""GGUFs that lie: a good one changed in one seeded way, or just damaged bytes."""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from random import Random
from typing import Any

from tests.slices.gguf_document import (
    ARRAY,
    BLOCKS,
    BOOL,
    F32,
    I32,
    STR,
    U32,
    Blob,
    Document,
    Value,
    render,
    size,
)  # fmt: skip

HOSTILE: dict[int, list[Any]] = {
    U32: [0, 1, 2, 3, 5, 7, 8, 16, 31, 64, 127, 255, 256, 257, 512, 513, 1000, 2**16, 2**24, 2**31 - 1, 2**31,
          2**32 - 2, 2**32 - 1],
    F32: [0.0, -0.0, 1.0, -1.0, 1e-45, 1e-6, 0.5, 30.0, 1e4, 1e30, 3e38, -3e38, float("inf"), float("nan")],
    BOOL: [True, False],
    STR: [b"", b"a", b"gemma3", b"gemma4", b"gemma3n", b"llama", b"gpt2", b"t5", b"bert", b"none", b"rwkv",
          b"default", b"linear", b"yarn", b"\xff\xfe", b"a\0b", b"x" * 70_000, b"phi-3", b"<bos>", b" "],
}  # fmt: skip
HOSTILE[I32] = [-1, -(2**31), *HOSTILE[U32][:20]]
SETTINGS = (
    "expert_count", "expert_used_count", "expert_group_count", "pooling_type", "attention.causal",
    "rope.scaling.type", "rope.scaling.factor", "rope.dimension_count", "rope.dimension_count_swa",
    "nextn_predict_layers", "attention.key_length_swa", "attention.value_length_swa", "vocab_size",
    "attention.shared_kv_layers", "final_logit_softcapping", "attention.sliding_window",
    "leading_dense_block_count", "embedding_length_per_layer_input", "rope.freq_base_swa",
    "rope.scaling.original_context_length",
    "attention.layer_norm_epsilon", "attention.scale", "embedding_length_out", "rope.scaling.attn_factor",
)  # fmt: skip


def mutated(good: Document, seed: int) -> tuple[bytes, str]:
    """A copy of `good` with one mutation, as a file's bytes, and which it was."""
    random = Random(seed)
    document = good.copy()
    if random.random() < 0.2:
        return damage(render(document), random)
    change = random.choice(CHANGES)
    what = change(document, random)
    return render(document), f"{change.__name__}: {what}"


def damage(raw: bytes, random: Random) -> tuple[bytes, str]:
    """Bytes flipped, mostly in the header; the file cut short or too long."""
    if random.random() < 0.2:
        length = random.choice([0, 3, 24, 1000, len(raw) // 2, len(raw) - 33, len(raw) - 1, len(raw) + 64])
        return (raw + bytes(64))[:length], f"damage: {length} of {len(raw)} bytes"
    out, end = bytearray(raw), random.choice([200, 2000, 30_000, len(raw)])
    places = [random.randrange(min(end, len(raw))) for _ in range(random.choice([1, 1, 2, 8]))]
    for place in places:
        out[place] = random.choice([random.randrange(256), 0xFF, 0x7F, 0, out[place] ^ 1])
    return bytes(out), f"damage: bytes {places}"


def set_number(document: Document, random: Random) -> str:
    """A setting that is there, to something of its type."""
    key = random.choice([k for k, v in document.keys.items() if v.kind in HOSTILE])
    document.keys[key].value = random.choice(HOSTILE[document.keys[key].kind])
    return f"{key} = {document.keys[key].value!r:.60}"


def add_setting(document: Document, random: Random) -> str:
    """One that llama.cpp also reads, of some type."""
    kind = random.choice([U32, U32, F32, BOOL, STR])
    key = f"{document.arch}.{random.choice(SETTINGS)}"
    document.keys[key] = Value(kind, random.choice(HOSTILE[kind]))
    return f"{key} = {document.keys[key].value!r:.60}"


def move_key(document: Document, random: Random) -> str:
    """Dropped, renamed, or there twice."""
    key, other = random.sample(list(document.keys), 2)
    kind = random.randrange(3)
    if kind == 0:
        del document.keys[key]
    elif kind == 1:
        document.keys[key].name = random.choice([other, "", key + "x", "general.alignment"])
    else:
        document.keys["again"] = replace(document.keys[key], name=key)
    return f"{('drop', 'rename', 'repeat')[kind]} {key}"


def change_array(document: Document, random: Random) -> str:
    """Items swapped, changed, dropped, added; made an array from a number, or of another type."""
    for key in (key for key in ("feed_forward_length", "attention.head_count") if random.random() < 0.3):
        value = document.keys[f"{document.arch}.{key}"]
        if value.kind == U32:
            count = document.keys[f"{document.arch}.block_count"].value
            value.kind, value.value = ARRAY, [value.value] * count
    key = random.choice([k for k, v in document.keys.items() if v.kind == ARRAY])
    array = document.keys[key]
    items, at = array.value, random.randrange(len(array.value))
    match random.randrange(5):
        case 0:
            other = random.randrange(len(items))
            items[at], items[other] = items[other], items[at]
        case 1:
            del items[at]
        case 2:
            items.insert(at, items[random.randrange(len(items))])
        case 3:
            array.value = random.choice([[], items * 2, items[:at], [items[0]] * len(items)])
        case _:
            items[at] = random.choice(HOSTILE[array.inner])
    return f"{key} at {at}"


def change_tensor(document: Document, random: Random) -> str:
    """Dropped, renamed, there twice, of another type, reshaped, or elsewhere."""
    name, other = random.sample(list(document.tensors), 2)
    blob, them = document.tensors[name], document.tensors[other]
    kind = random.randrange(7)
    match kind:
        case 0:
            del document.tensors[name]
        case 1:
            new = random.choice(
                [other, "", "blk.99.attn_q.weight", "rope_freqs.weight", "x" * 64, name + "s"]
            )
            document.tensors[name] = replace(blob, name=new)
        case 2:
            document.tensors["again"] = replace(blob, name=random.choice([name, "output.weight"]))
        case 3:
            new_type = random.choice([*BLOCKS, 5, 42, 99])
            fits = new_type in BLOCKS and blob.shape[0] % BLOCKS[new_type][0] == 0
            data = bytes(size(blob.shape, new_type)) if fits else blob.data
            document.tensors[name] = replace(blob, type=new_type, data=data)
        case 4:
            shapes = [
                blob.shape[::-1],
                (*blob.shape, 1),
                (*blob.shape, 2),
                (prod(blob.shape),),
                (2**40, 2**40),
            ]
            shapes += [(blob.shape[0], 0), (blob.shape[0] * 2, *blob.shape[1:])]
            document.tensors[name] = replace(blob, shape=random.choice(shapes))
        case 5:
            shift = random.choice([-32, 1, 8, 32, 4096, 2**40, 2**63])
            document.tensors[name] = replace(blob, offset=shift)
        case _:
            document.tensors[name], document.tensors[other] = them, blob
    return f"{name} ({kind}, {other})"


def change_data(document: Document, random: Random) -> str:
    """Weights: noise, ones, a NaN, a huge number."""
    name = random.choice(list(document.tensors))
    data = bytearray(document.tensors[name].data)
    kind = random.randrange(4)
    if kind == 0:
        data[:] = random.randbytes(len(data))
    elif kind == 1:
        data[:] = random.choice([b"\xff", b"\x7f", b"\x00"]) * len(data)
    else:
        pattern = random.choice(
            [b"\xff\xff\xff\xff", b"\x80\x7f\x80\x7f", b"\x7f\x7f\x7f\x7f", b"\x00\x7c\x00\x7c"]
        )
        at = random.randrange(len(data) // 4) * 4
        data[at : at + 4] = pattern
    document.tensors[name] = replace(document.tensors[name], data=bytes(data))
    return f"{name} ({kind})"


def shrink(document: Document, random: Random) -> str:
    """Something that fits together again: fewer layers, tokens or neurons, other heads."""
    arch, kind = document.arch, random.randrange(5)
    layers = document.keys[f"{arch}.block_count"].value
    if kind == 0:
        return _fewer_layers(document, random.randrange(layers + 1))
    if kind == 1:
        return _fewer_tokens(document, random.choice([0, 1, 3, 6, 200, 270, 300, 400]))
    if kind == 2:
        return _other_heads(document, random.choice([1, 2, 16, 32, 64, 128]))
    if kind == 3 and arch == "gemma4":
        return _odd_layer(document, random.randrange(layers), random.choice([1, 2, 3, 4, 8]), random)
    pattern = document.keys.get(f"{arch}.attention.sliding_window_pattern")
    if pattern is not None:
        pattern.value = [random.random() < random.choice([0.1, 0.5, 0.9]) for _ in pattern.value]
    return "another pattern"


def _fewer_layers(document: Document, count: int) -> str:
    document.keys[f"{document.arch}.block_count"].value = count
    for value in document.keys.values():
        if value.kind == ARRAY and value.inner in (U32, I32, BOOL) and len(value.value) < 100:
            value.value = value.value[:count]
    for name in [
        name for name in document.tensors if name.startswith("blk.") and int(name.split(".")[1]) >= count
    ]:
        del document.tensors[name]
    return f"{count} layers"


def _fewer_tokens(document: Document, count: int) -> str:
    for key in ("tokens", "scores", "token_type"):
        array = document.keys[f"tokenizer.ggml.{key}"]
        array.value = array.value[:count]
    for name in ("token_embd.weight", "per_layer_token_embd.weight"):
        blob = document.tensors.get(name)
        if blob is not None:
            shape = (blob.shape[0], count)
            document.tensors[name] = replace(blob, shape=shape, data=blob.data[: size(shape, blob.type)])
    return f"{count} tokens"


def _other_heads(document: Document, head: int) -> str:
    """Heads of another size, as many as fill the same matrices."""
    arch = document.arch
    old = document.keys[f"{arch}.attention.key_length"].value
    for key in ("head_count", "head_count_kv"):
        value = document.keys[f"{arch}.attention.{key}"]
        if value.kind == U32:
            value.value = value.value * old // head
    for key in ("key_length", "value_length"):
        document.keys[f"{arch}.attention.{key}"].value = head
    for name in [name for name in document.tensors if name.endswith(("_q_norm.weight", "_k_norm.weight"))]:
        document.tensors[name] = Blob((head,), 0, bytes(4 * head))
    return f"heads of {head}"


def _odd_layer(document: Document, layer: int, kv_heads: int, random: Random) -> str:
    """A layer of Gemma 4 with other numbers of heads than its neighbours."""
    heads, count = kv_heads * random.choice([1, 2]), document.keys["gemma4.block_count"].value
    for key, number in (("head_count", heads), ("head_count_kv", kv_heads)):
        value = document.keys[f"gemma4.attention.{key}"]
        if value.kind == U32:
            value.kind, value.value = ARRAY, [value.value] * count
        value.value[layer] = number
    head = document.tensors[f"blk.{layer}.attn_q_norm.weight"].shape[0]
    hidden = document.keys["gemma4.embedding_length"].value
    shapes = {"attn_q": (hidden, heads * head), "attn_output": (heads * head, hidden)}
    shapes |= dict.fromkeys(("attn_k", "attn_v"), (hidden, kv_heads * head))
    for name, shape in shapes.items():
        if f"blk.{layer}.{name}.weight" in document.tensors:
            document.tensors[f"blk.{layer}.{name}.weight"] = Blob(shape, 0, bytes(size(shape, 0)))
    return f"layer {layer} with {heads} heads and {kv_heads} of K/V"


CHANGES: list[Callable[[Document, Random], str]] = [
    set_number, set_number, set_number, add_setting, move_key, change_array, change_array, change_tensor,
    change_tensor, change_data, shrink, shrink,
]  # fmt: skip
