"""The tokenizer inside a Gemma 3 GGUF, as Hugging Face files.

GGUF holds pieces and scores in SentencePiece's manner; byte-pair encoding needs merges. A piece can be
made from any split of it into two other pieces, and a better score goes first, which is how the
family's own tokenizer.json came about (the longer left part first among equals makes no difference to
what is encoded, only to the listing).
"""

from collections.abc import Mapping
from typing import Any

CONTROL, USER_DEFINED, BYTE = 3, 4, 6  # llama.cpp's token types


def tokenizer_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer.json of a GGUF's `tokenizer.ggml.*` fields.

    Args:
        fields: GGUF metadata by key, values as Python objects.
    """
    pieces: list[str] = fields["tokenizer.ggml.tokens"]
    types: list[int] = fields["tokenizer.ggml.token_type"]
    unknown = pieces[fields["tokenizer.ggml.unknown_token_id"]]
    bos = fields["tokenizer.ggml.bos_token_id"]
    added = [
        _added(index, piece, special=types[index] == CONTROL)
        for index, piece in enumerate(pieces)
        if types[index] in (CONTROL, USER_DEFINED)
    ]
    skip = {token["content"] for token in added} | {
        p for p, t in zip(pieces, types, strict=True) if t == BYTE
    }
    vocab = {piece: index for index, piece in enumerate(pieces)}
    scores: list[float] = fields["tokenizer.ggml.scores"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
        },
        "post_processor": _bos_template(pieces[bos], bos),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": vocab, "merges": merges(vocab, scores, skip),
        },
    }  # fmt: skip


def merges(vocab: Mapping[str, int], scores: list[float], skip: set[str]) -> list[list[str]]:
    """Every way to make a piece from two others, the best-scored piece first."""
    found: list[tuple[float, int, int, str, str]] = []
    for piece, index in vocab.items():
        if piece in skip:
            continue
        for at in range(1, len(piece)):
            left, right = piece[:at], piece[at:]
            if left in vocab and right in vocab and left not in skip and right not in skip:
                found.append((-scores[index], index, vocab[left], left, right))
    found.sort()
    return [[left, right] for *_, left, right in found]


def tokenizer_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json: which tokens are special, and that bos goes first."""
    pieces: list[str] = fields["tokenizer.ggml.tokens"]
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    special = {key: pieces[fields[f"tokenizer.ggml.{name}_token_id"]] for key, name in names.items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["gemma3.context_length"],
        **special,
    }


def _added(index: int, piece: str, special: bool) -> dict[str, Any]:
    return {
        "id": index, "content": piece, "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": special,
    }  # fmt: skip


def _bos_template(piece: str, index: int) -> dict[str, Any]:
    bos = {"SpecialToken": {"id": piece, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {piece: {"id": piece, "ids": [index], "tokens": [piece]}},
    }
