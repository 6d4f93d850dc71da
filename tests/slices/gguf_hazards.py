"""What a GGUF may say that llama.cpp would abort on or misread: one change each, and how it is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from slices.gguf.layout import IDENTITY_LAYERS
from tests.slices.gguf_document import ARRAY, F32, I32, STR, U32, Document, Value


def as_llama(gemma3: Document) -> Document:
    """The same matrices as an architecture that the check has no table for."""
    llama = gemma3.copy()
    for key in [key for key in llama.keys if key.startswith("gemma3.")]:
        llama.set(key.replace("gemma3.", "llama."), llama.keys.pop(key))
    llama.keys["general.architecture"].value = b"llama"
    for name in [name for name in llama.tensors if "post_" in name or "q_norm" in name or "k_norm" in name]:
        del llama.tensors[name]
    return llama


def number(key: str, value: Any, kind: int = U32) -> Callable[[Document], None]:
    """Set a setting of the architecture."""

    def change(document: Document) -> None:
        document.set(f"{document.arch}.{key}", Value(kind, value))

    return change


def array(key: str, values: list[Any], kind: int) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        name = key if key.startswith(("tokenizer.", "mom.")) else f"{document.arch}.{key}"
        document.set(name, Value(9, values, kind))

    return change


def without(key: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        del document.keys[key]

    return change


def item(key: str, at: int, new: Any) -> Callable[[Document], None]:
    """Change one item of an array."""

    def change(document: Document) -> None:
        document.keys[key].value[at] = new

    return change


def tensor(which: str, **changes: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document.tensors[which] = replace(document.tensors[which], **changes)

    return change


def no_tensor(name: str) -> Callable[[Document], None]:
    def remove(document: Document) -> None:
        del document.tensors[name]

    return remove


def another_tensor(document: Document) -> None:
    document.tensors["blk.0.attn_q.bias"] = replace(document.tensors["blk.0.attn_norm.weight"])


def no_text(document: Document) -> None:
    """llama.cpp gives an empty token a name, which another one has."""
    document.keys[TOKENS].value[300:302] = [b"", b"[EMPTY_300]"]


TOKENS, TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
PATTERN, SHARED = "attention.sliding_window_pattern", "attention.shared_kv_layers"
HAZARDS: dict[str, tuple[str, Callable[[Document], None], str]] = {
    "no architecture": ("gemma3", without("general.architecture"), "general.architecture is missing"),
    "no layers": ("gemma3", number("block_count", 0), "block_count is 0; expected 1 to 512"),
    "too many layers": ("gemma3", number("block_count", 513), "block_count is 513"),
    "layers as text": ("gemma3", lambda d: d.set("gemma3.block_count", Value(STR, "3")), "of the type str"),
    "more layers than tensors": ("gemma3", number("block_count", 4), "sliding_window_pattern has 3 values"),
    "no context": ("gemma3", number("context_length", 0), "context_length is 0"),
    "odd context": ("gemma3", number("context_length", 300), "expected 256, or 512 and more"),
    "endless context": ("gemma3", number("context_length", 2**32 - 1), "context_length is 4294967295"),
    "no heads": ("gemma3", number("attention.head_count", 0), "head_count is 0"),
    "no K/V heads": ("gemma3", number("attention.head_count_kv", 0), "head_count_kv is 0"),
    "uneven heads": ("gemma3", number("attention.head_count_kv", 3), "4 heads for 3 K/V heads"),
    "fewer K/V heads": ("gemma3", number("attention.head_count_kv", 1), "attn_k.weight' has the shape"),
    "heads by layer": ("gemma3", array("attention.head_count", [4, 4, 2], U32), "differs by layer"),
    "heads of two layers": ("gemma3", array("attention.head_count", [4, 4], U32), "2 values for 3 layers"),
    "another width": ("gemma3", number("embedding_length", 128), "has the shape"),
    "another value size": ("gemma3", number("attention.value_length", 32), "expected one even"),
    "too much turned": ("gemma3", number("rope.dimension_count", 66), "an even number up to 64"),
    "no epsilon": ("gemma3", without("gemma3.attention.layer_norm_rms_epsilon"), "epsilon is missing"),
    "zero epsilon": ("gemma3", number("attention.layer_norm_rms_epsilon", 0.0, F32), "epsilon is 0.0"),
    "NaN": ("gemma3", number("attention.layer_norm_rms_epsilon", float("nan"), F32), "finite"),
    "turning backwards": ("gemma3", number("rope.freq_base", -1.0, F32), "freq_base is -1.0"),
    "no cap": ("gemma3", number("final_logit_softcapping", 0.0, F32), "softcapping is 0.0"),
    "no window": ("gemma3", number("attention.sliding_window", 0), "sliding_window is 0"),
    "window missing": ("gemma3", without("gemma3.attention.sliding_window"), "sliding_window is 0, but"),
    "window for nothing": ("gemma3", array(PATTERN, [False] * 3, 7), "sliding_window is 16, but"),
    "unknown scaling": (
        "gemma3",
        lambda d: d.set("gemma3.rope.scaling.type", Value(STR, "llama3")),
        "scaling.type is 'llama3'",
    ),
    "experts of none": ("gemma3", number("expert_used_count", 2), "2 of 0 experts"),
    "not causal": ("gemma3", number("attention.causal", False, 7), "attention.causal is there"),
    "more to predict": ("gemma3", number("nextn_predict_layers", 3), "nextn_predict_layers is there"),
    "in parts": ("gemma3", lambda d: d.set("split.count", Value(2, 2)), "one part of several"),
    "unknown tokenizer": ("gemma3", lambda d: d.set("tokenizer.ggml.model", Value(STR, "t5")), "'t5'"),
    "two tokens alike": ("gemma3", item(TOKENS, 300, b"<bos>"), "holds b'<bos>' 2 times"),
    "alike up to a NUL": ("gemma3", item(TOKENS, 300, b"<bos>\0x"), "holds b'<bos>' 2 times"),
    "alike without a text": ("gemma3", no_text, "holds b'[EMPTY_300]' 2 times"),
    "no text": ("gemma3", item(TOKENS, 300, b"\xff"), "'utf-8' codec"),
    "no byte": ("gemma3", item(TOKENS, 12 + 0xE6, b"<0xzz>"), "256 byte tokens"),
    "byte as text": ("gemma3", item(TYPES, 12 + 0xE6, 1), "256 byte tokens"),
    "unknown token type": ("gemma3", item(TYPES, 300, 7), "outside 0..6"),
    "fewer scores": ("gemma3", array("tokenizer.ggml.scores", [0.0] * 5, F32), "one for each token"),
    "no types": ("gemma3", without(TYPES), "one for each token"),
    "bos outside": (
        "gemma3",
        lambda d: d.set("tokenizer.ggml.bos_token_id", Value(U32, 10**6)),
        "bos_token_id is 1000000",
    ),
    "no eos": ("gemma3", without("tokenizer.ggml.eos_token_id"), "eos_token_id is missing"),
    "no merges": ("merges", without("tokenizer.ggml.merges"), "merges is None"),
    "merge of one": ("merges", item("tokenizer.ggml.merges", 3, b"ab"), "holds b'ab'"),
    "tensor missing": ("gemma3", no_tensor("blk.1.ffn_up.weight"), "'blk.1.ffn_up.weight' is missing"),
    "tensor unknown": ("gemma3", another_tensor, "'blk.0.attn_q.bias' is none that"),
    "tensor reshaped": ("gemma3", tensor("blk.1.attn_q.weight", shape=(128, 512)), "has the shape"),
    "norm in bf16": ("gemma3", tensor("output_norm.weight", type=30, data=bytes(512)), "ggml type 30"),
    "matrix of whole numbers": (
        "gemma3", tensor("blk.0.attn_k.weight", type=26, data=bytes(4 * 256 * 128)), "ggml type 26",
    ),
    "rope_freqs in a Gemma 3": (
        "gemma3",
        lambda d: d.tensors.update({"rope_freqs.weight": d.tensors["blk.0.attn_q_norm.weight"]}),
        "'rope_freqs.weight' is none that",
    ),
    "no sliding layer": ("gemma4", array(PATTERN, [False] * 42, 7), "sliding_window is 16, but"),
    "no pattern": ("gemma4", without(f"gemma4.{PATTERN}"), "expected an array of bool"),
    "pattern too short": ("gemma4", array(PATTERN, [True] * 5, 7), "5 values for 42 layers"),
    "all shared": ("gemma4", number(SHARED, 42), "0 of 42 layers have K/V of their own"),
    "one own": ("gemma4", number(SHARED, 41), "wants 2 where others share it"),
    "one more shared": ("gemma4", number(SHARED, 19), "K/V of layer 21, but the last sliding"),
    "one fewer shared": ("gemma4", number(SHARED, 17), "K/V of layer 23, but the last sliding"),
    "donors swapped": (
        "gemma4",
        lambda d: _swap(d.keys[f"gemma4.{PATTERN}"].value, 22, 23),
        "but the last sliding layer with its own is",
    ),
    "identity layer not named": (
        "spaced",
        without(IDENTITY_LAYERS),
        "but the last sliding layer with its own is [20]",
    ),
    "identity layers as text": (
        "spaced",
        lambda d: d.set(IDENTITY_LAYERS, Value(STR, "20")),
        "array of layer numbers",
    ),
    "identity layers by their old key": (
        "spaced",
        lambda d: d.set("mom.spacers", Value(ARRAY, [20], I32)),
        "mom.spacers, which an older mom wrote",
    ),
    "donor is an identity layer": ("gemma4", array(IDENTITY_LAYERS, [22], I32), "read the K/V of layer 22"),
    "rope_freqs missing": ("gemma4", no_tensor("rope_freqs.weight"), "'rope_freqs.weight' is missing"),
    "rope_freqs for nothing": (
        "spaced",
        lambda d: d.tensors.update({"rope_freqs.weight": d.tensors["blk.0.attn_q_norm.weight"]}),
        "'rope_freqs.weight' is none that",
    ),
    "turned as a full one": (
        "gemma4", without("gemma4.rope.dimension_count_swa"), "dimension_count_swa is 16; expected an even",
    ),
    "no sliding head": ("gemma4", without("gemma4.attention.key_length_swa"), "key_length_swa is missing"),
    "wider PLE": ("gemma4", number("embedding_length_per_layer_input", 32), "has the shape"),
    "own V missing": ("gemma4", no_tensor("blk.3.attn_v.weight"), "'blk.3.attn_v.weight' is missing"),
    "own K missing": ("gemma4", no_tensor("blk.3.attn_k.weight"), "'blk.3.attn_k.weight' is missing"),
    "more experts used": ("experts", number("expert_used_count", 9), "9 of 4 experts"),
    "too many experts": ("experts", number("expert_count", 513), "expert_count is 513"),
    "experts for no router": (
        "experts", no_tensor("blk.0.ffn_gate_inp.weight"), "is none that llama.cpp asks for",
    ),
}  # fmt: skip


def _swap(values: list[Any], one: int, other: int) -> None:
    values[one], values[other] = values[other], values[one]
