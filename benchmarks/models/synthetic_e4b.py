"""Write a checkpoint with the layout of Gemma 4 E4B and random weights: about 16 GB, for benchmarks.

Names, shapes, types and the order in the file are those of the original, K/V that are never executed
included; the towers are stand-ins of about the right size. The tokenizer is a byte-pair encoding of the
right size over made-up words. It answers nothing.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from slices.architecture.anatomy import read_anatomy
from slices.files.safetensors_header import parse_json_object
from slices.files.safetensors_writer import Slot, lay_out, write, write_all

SLIDING, FULL = "sliding_attention", "full_attention"
E4B: dict[str, Any] = {
    "model_type": "gemma4_text", "dtype": "bfloat16", "hidden_size": 2560, "intermediate_size": 10240,
    "num_hidden_layers": 42, "layer_types": ([SLIDING] * 5 + [FULL]) * 7, "num_kv_shared_layers": 18,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "global_head_dim": 512,
    "hidden_size_per_layer_input": 256, "vocab_size": 262144, "vocab_size_per_layer_input": 262144,
    "sliding_window": 512, "final_logit_softcapping": 30.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
    "max_position_embeddings": 131072, "hidden_activation": "gelu_pytorch_tanh", "use_double_wide_mlp": False,
    "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    "rope_parameters": {
        FULL: {"partial_rotary_factor": 0.25, "rope_theta": 1e6, "rope_type": "proportional"},
        SLIDING: {"rope_theta": 1e4, "rope_type": "default"},
    },
}  # fmt: skip
COMMON = 27  # characters that words are made of
POWERS = (2, 8)  # words grow at their end, by common pieces
BLOCK = 16 * 2**20  # bytes
NAMED = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
LETTERS = "etaoinshrdlcumwfgypbvkjxqzETAOINSHRDLCUMWFGYPBVKJXQZ0123456789.,;:!?'\"()-/=+*<>[]{}_#$%&@\\^`|~"
OTHERS = (
    "éèàüößñçøåæœабвгдежзийклмнопрстуфхцчшщъыьэюяαβγδεζηθλμπσφψω"
    "的一是不了人我在有他这中大来上国あいうえおかきくけこ🙂🙃🚀"
)


def words(count: int, rng: np.random.Generator) -> tuple[list[str], list[list[str]]]:
    """`count` distinct pieces, each joined from two earlier ones, and every merge that makes one."""
    single = ["▁", *LETTERS, *OTHERS]
    pieces, known = single[:COMMON], set(single)
    while len(pieces) < count + COMMON:
        ends = (rng.random((4096, 2)) ** POWERS * len(pieces)).astype(np.int64)
        for left, right in ends:
            joined = pieces[left] + pieces[right]
            if len(joined) <= 14 and joined not in known and "▁" not in joined[1:]:
                known.add(joined)
                pieces.append(joined)
    made = pieces[COMMON : COMMON + count]
    known = {*single, *made}
    merges = [
        [piece[:at], piece[at:]]
        for piece in made
        for at in range(1, len(piece))
        if piece[:at] in known and piece[at:] in known
    ]
    return made + single, merges


def tokenizer_json(rows: int) -> dict[str, Any]:
    """A tokenizer.json of Gemma 4's make with `rows` tokens; a few control tokens have the high ids."""
    control = [*NAMED, *(f"<unused{i}>" for i in range(100)), "<|turn>", "<turn|>"]
    runs = ["\n" * n for n in range(1, 32)] + ["▁" * n for n in range(2, 32)]
    high = [f"<reserved{i}>" for i in range(max(0, rows - 255_999))]
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    single = len(LETTERS) + len(OTHERS) + 1
    free = rows - len(control) - len(runs) - len(high) - len(bytes_) - single
    made, merges = words(free, np.random.default_rng(1))
    tokens = [*control, *runs, *bytes_, *made, *high]
    vocab = {token: index for index, token in enumerate(tokens)}
    added = [
        {"id": vocab[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": token not in runs}
        for token in [*control, *runs, *high]
    ]  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
        ]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": vocab, "merges": merges,
        },
    }  # fmt: skip


def towers(hidden: int) -> Iterator[Slot]:
    """Stand-ins for the vision and audio towers: 440 M parameters beside a hidden size of 2560."""
    yield Slot("model.embed_vision.embedding_projection.weight", "BF16", (hidden, 768))
    yield Slot("model.embed_audio.embedding_projection.weight", "BF16", (hidden, 1536))
    for layer in range(16):
        for name, shape in {"q": (768, 768), "o": (768, 768), "up": (3072, 768), "down": (768, 3072)}.items():
            yield Slot(f"model.vision_tower.encoder.layers.{layer}.{name}_proj.weight", "BF16", shape)
    for layer in range(12):
        for name in ("ffw_start_1", "ffw_start_2", "ffw_end_1", "ffw_end_2", "conv_1", "conv_2", "attention"):
            yield Slot(f"model.audio_tower.layers.{layer}.{name}.weight", "BF16", (4096, 1024))


def slots(config: Mapping[str, Any], with_towers: bool) -> list[Slot]:
    """All tensors in the order of the original file: by name."""
    prefix = "model.language_model." if with_towers else "model."
    text = [Slot(prefix + n, "BF16", t.shape) for n, t in read_anatomy(config).tensors.items()]
    other = list(towers(config["hidden_size"])) if with_towers else []
    return sorted([*text, *other], key=lambda slot: slot.name)


def fill(slot: Slot, out: BinaryIO) -> None:
    """Random bf16 of either sign, between 2^-7 and 2^-3 in size: no NaN, no infinity."""
    rng = np.random.Generator(np.random.SFC64(list(slot.name.encode())))
    left = slot.nbytes
    while left:
        count = min(left, BLOCK)
        raw = rng.integers(0, 2**64, -(-count // 8), np.uint64).view(np.uint16)
        raw &= 0x81FF
        raw |= 0x3C00
        left -= write_all(out, raw.view(np.uint8).data[:count])


def shortened(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """The first `layers` layers, with the same share of K/V sharers."""
    shared = config.get("num_kv_shared_layers", 0) * layers // config["num_hidden_layers"]
    types = config["layer_types"][:layers]
    return config | {"num_hidden_layers": layers, "layer_types": types, "num_kv_shared_layers": shared}


def main() -> None:
    """Write OUT."""
    parser = argparse.ArgumentParser(
        description="Write a checkpoint of Gemma 4 E4B's layout, random weights."
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, help="a config.json in place of E4B's")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json in place of a made-up one")
    parser.add_argument("--layers", type=int, help="only the first so many layers")
    args = parser.parse_args()
    outer = parse_json_object(args.config.read_bytes(), args.config) if args.config else {}
    config = outer.get("text_config", outer) or E4B
    if args.layers:
        config = shortened(config, args.layers)
    multimodal = not outer or "text_config" in outer
    stated = {
        "model_type": "gemma4",
        "architectures": ["Gemma4ForConditionalGeneration"],
        "text_config": config,
    }
    args.out.mkdir(parents=True)
    (args.out / "config.json").write_text(json.dumps((outer | stated) if multimodal else config, indent=1))
    rows = config.get("vocab_size", 262144)
    generation = {"bos_token_id": 2, "eos_token_id": [1, 106, 50], "pad_token_id": 0}
    (args.out / "generation_config.json").write_text(json.dumps(generation))
    made_up = json.dumps(tokenizer_json(rows), ensure_ascii=False, indent=1)
    document = args.tokenizer.read_text(encoding="utf-8") if args.tokenizer else made_up
    (args.out / "tokenizer.json").write_text(document, encoding="utf-8")
    (args.out / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    layout = lay_out(slots(config, multimodal), shard_bytes=2**60)
    write(args.out, layout, fill)
    print(f"{args.out}: {layout.nbytes:,} bytes of weights, {rows:,} tokens")


if __name__ == "__main__":
    main()
