"""A GGUF's vocabulary against what llama.cpp's tokenizers take for granted.

Two tokens of one text end the process as it loads; a missing byte token ends it later, in the middle of
serving, on the first text that needs it. Only the kinds of tokenizer that `slices` meets are let through.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from slices.gguf.arrays import read_numbers, read_texts
from slices.gguf.header import GGUFHeader

_TOKENS, _SCORES = "tokenizer.ggml.tokens", "tokenizer.ggml.scores"
_TYPES, _MERGES = "tokenizer.ggml.token_type", "tokenizer.ggml.merges"
_SENTENCEPIECE, _GEMMA4, _BYTE_LEVEL = "llama", "gemma4", "gpt2"
_BYTE, _LAST_TYPE = 6, 6
_HEX = re.compile(rb"<0x[0-9A-F]{2}>")
_BOOLS = ("add_bos_token", "add_eos_token", "add_space_prefix")


def token_problems(path: Path, header: GGUFHeader) -> Iterator[str]:
    """What is wrong with the vocabulary, in sentences; the first is enough to refuse the file."""
    model = header.metadata.get("tokenizer.ggml.model")
    if model not in (_SENTENCEPIECE, _GEMMA4, _BYTE_LEVEL):
        yield f"tokenizer.ggml.model is {model!r}; expected 'llama', 'gemma4' or 'gpt2'"
    if not header.length(_TOKENS) or header.kinds[_TOKENS] != "[str]":
        yield f"{_TOKENS} is missing; expected an array of texts"
    yield from _arrays(header, model)
    yield from _settings(header, model)
    texts = read_texts(path, header, _TOKENS)
    yield from _texts(texts)
    if model != _BYTE_LEVEL:
        yield from _bytes(path, header, texts)
    if model != _SENTENCEPIECE:
        yield from _merges(read_texts(path, header, _MERGES))


def _arrays(header: GGUFHeader, model: object) -> Iterator[str]:
    """The arrays beside the tokens, in type and length."""
    count = header.length(_TOKENS)
    expected = {_SCORES: ("[f32]", model == _SENTENCEPIECE), _TYPES: ("[i32]", model != _BYTE_LEVEL)}
    for key, (kind, required) in expected.items():
        if (key in header.kinds or required) and (header.kinds.get(key), header.length(key)) != (kind, count):
            found = f"{header.kinds.get(key)} of {header.length(key)}"
            yield f"{key} is {found}; expected {kind} of {count}, one for each token"
    if model != _SENTENCEPIECE and header.kinds.get(_MERGES) != "[str]":
        yield f"{_MERGES} is {header.kinds.get(_MERGES)}; expected an array of texts"


def _settings(header: GGUFHeader, model: object) -> Iterator[str]:
    """The ids of special tokens, and the flags."""
    count = header.length(_TOKENS)
    for key in (key for key in header.kinds if re.fullmatch(r"tokenizer\.ggml\.\w+_token_id", key)):
        value = header.metadata[key]
        if header.kinds[key] != "u32" or not value < count:
            yield f"{key} is {value!r}; expected the number of one of the {count} tokens"
    for name in ("bos", "eos"):
        if model != _BYTE_LEVEL and f"tokenizer.ggml.{name}_token_id" not in header.kinds:
            yield f"tokenizer.ggml.{name}_token_id is missing"
    for key in (f"tokenizer.ggml.{name}" for name in _BOOLS):
        if header.kinds.get(key, "bool") != "bool":
            yield f"{key} is {header.metadata[key]!r}; expected true or false"


def _texts(texts: Sequence[bytes]) -> Iterator[str]:
    joined = b"\n".join(texts)
    try:
        joined.decode()
    except UnicodeDecodeError as error:
        yield f"{_TOKENS} holds a text that is no UTF-8: {error}"
    read = [text.split(b"\0", 1)[0] for text in texts] if b"\0" in joined else texts  # as far as C does
    named = read if all(read) else [text or b"[EMPTY_%d]" % index for index, text in enumerate(read)]
    if len(set(named)) != len(named):
        twice, times = Counter(named).most_common(1)[0]
        yield f"{_TOKENS} holds {twice!r} {times} times as llama.cpp reads it"


def _bytes(path: Path, header: GGUFHeader, texts: Sequence[bytes]) -> Iterator[str]:
    """Text that no token spells falls to byte tokens: each must be there, and be marked as what it is."""
    types = read_numbers(path, header, _TYPES)
    if not ((types >= 0) & (types <= _LAST_TYPE)).all():
        yield f"{_TYPES} holds a type outside 0..{_LAST_TYPE}"
    named = {texts[index] for index in (types == _BYTE).nonzero()[0]}
    if len(named) != 256 or not all(_HEX.fullmatch(text) for text in named):
        yield f"expected 256 byte tokens <0x00> to <0xFF>, found {len(named)} tokens marked as such"


def _merges(merges: Sequence[bytes]) -> Iterator[str]:
    wrong = next((text for text in merges if text.find(b" ", 1, -1) < 1), None)
    if wrong is not None:
        yield f"{_MERGES} holds {wrong!r}; expected two texts with a space between them"
