"""Pico Gemma 3 checkpoints: random weights, a real byte-fallback BPE, small enough to export in a second."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from slices import manifest
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest

SLIDING, FULL = "sliding_attention", "full_attention"
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
RUNS = ["\n", "\n\n", "\n\n\n", "  ", "   ", "    "]
BYTES = [f"<0x{value:02X}>" for value in range(256)]
SAMPLES = {
    "prose": "The quick brown fox jumps over the lazy dog, and the dogs of the town answered it one by one.",
    "code": "def add(a, b):\n    if a == b:\n        return 2*a\n\n\n    return a + b  # the sum\n\tpass",
    "french": "L'été dernier, nous étions à la plage ; où étiez-vous, chère amie ? Ça n'a pas d'importance.",
    "formula": "$\\sum_{i=1}^{n} x_i^2 = \\frac{n(n+1)(2n+1)}{6}$, so E = mc² and ∂f/∂x ≠ 0",
    "emoji": "naïve 🙂🙃 café 👩‍👩‍👧 東京 \u2028 ok ▁▁ literal",
    "spaces": "a  b   c    d     e          f\n\n\n\n\ng \n \n h"
    + " " * 70
    + "end"
    + "=" * 13
    + "\n" * 40
    + "x",
    "control": "<bos>user <start_of_turn>model<end_of_turn> <unk> <0x41> <pad>",
}


@cache
def _trained() -> tuple[dict[str, int], list[list[str]]]:
    """Vocabulary and merges of Gemma's make: every way to build a token is a merge, in the token's order."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    words = [
        "===",
        "aaaa aaa aa",
        *(text for name, text in SAMPLES.items() if name not in ("emoji", "spaces", "control")),
    ]
    trainer = trainers.BpeTrainer(vocab_size=260, show_progress=False, special_tokens=["<unk>"])
    tokenizer.train_from_iterator(words * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    single = {token for token in model["vocab"] if len(token) == 1 and token != "\n"} | {
        chr(c) for c in range(33, 127)
    }
    made = ["".join(merge) for merge in model["merges"]]
    merged = [token for token in dict.fromkeys(made) if "\n" not in token]
    named = [*CONTROL, *RUNS, *BYTES, *merged, *sorted(single)]
    vocab = {token: index for index, token in enumerate(named)}
    splits = [
        [t[:at], t[at:]] for t in merged for at in range(1, len(t)) if t[:at] in vocab and t[at:] in vocab
    ]
    return vocab, splits


def tokenizer_json(merges: Sequence[Sequence[str]] | None = None) -> dict[str, Any]:
    """A tokenizer.json of Gemma 3's make; `merges` in place of its own."""
    vocab, own = _trained()
    added = [
        {"id": vocab[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": token in CONTROL}
        for token in [*CONTROL, *RUNS]
    ]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
        },
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": dict(vocab), "merges": [list(merge) for merge in (own if merges is None else merges)],
        },
    }  # fmt: skip


def write_gemma3(folder: Path, layer_types: Sequence[str], rows_more: int = 3, **changes: object) -> Path:
    """Write a pico gemma3_text checkpoint with random weights; every norm differs from 1."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    document = tokenizer_json()
    settings: dict[str, Any] = {
        "vocab_size": len(document["model"]["vocab"]) + rows_more, "hidden_size": 256, "head_dim": 64,
        "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_hidden_layers": len(layer_types),
        "query_pre_attn_scalar": 64, "sliding_window": 16, "max_position_embeddings": 1024,
        "layer_types": list(layer_types), "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(7)
    model = Gemma3ForCausalLM(Gemma3TextConfig(**(settings | changes)))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0.0, 0.3 if "norm" in name else 0.06)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    return folder


def write_manifest(folder: Path, name: str) -> None:
    """Make the checkpoint in `folder` a finished slice called `name`."""
    manifest.write(
        folder,
        manifest.Manifest(
            schema=manifest.SCHEMA, name=name, domain="demo", created=manifest.now(), recipe={}, layers=[0],
            vocabulary=0,
            parent=manifest.Parent(model="pico", model_type="gemma3_text", headers_sha256="", bytes=0),
            parameters=manifest.Parameters(decoder=0, per_layer_embedding=0, embedding=0, total=0),
            bytes=0, calibration=manifest.Calibration(source="none"), seed=0, versions={},
        ),
    )  # fmt: skip


def visible_and_hidden(folder: Path) -> set[str]:
    """Every name in a folder, left-over temporary files included."""
    return {path.name for path in folder.iterdir()}


def cut_by_prose(parent: Path, folder: Path) -> Path:
    """A slice of `parent` with all layers and the tokens of `SAMPLES["prose"]`, in a folder of `folder`."""
    (folder / "text.txt").write_text(SAMPLES["prose"])
    request = SliceRequest(
        domain="law",
        layers="all",
        model=str(parent),
        vocab="domain",
        corpus=(folder / "text.txt",),
        output=folder / "slice",
    )
    cut(request)
    return folder / "slice"
