"""A tokenizer.json of BPE, read piece by piece: a quarter of the memory that parsing it whole takes.

Gemma's file spells 262 thousand tokens and half a million merges; as Python lists and strings they weigh
300 MB. Here merges become pairs of ids in one array. What the rest of the file means is not known here.
"""

import json
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.errors import BadCheckpoint, Unsupported
from slices.files.safetensors_header import parse_json_object

_STRING = rb'"([^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*)"'
_SPACE = rb"[ \t\r\n]*"
# A quote inside a string is escaped, so neither can begin in one.
_VOCAB = re.compile(rb'"vocab"' + _SPACE + b":" + _SPACE + rb"(\{)" + _SPACE)
_MERGES = re.compile(rb'"merges"' + _SPACE + b":" + _SPACE + rb"(\[)" + _SPACE)
_TOKEN = re.compile(_STRING + _SPACE + b":" + _SPACE + rb"(\d{1,9})" + _SPACE + b"([,}])" + _SPACE)
_PAIR = re.compile(
    rb"\["
    + _SPACE
    + _STRING
    + _SPACE
    + b","
    + _SPACE
    + _STRING
    + _SPACE
    + rb"\]"
    + _SPACE
    + rb"([,\]])"
    + _SPACE
)
_LINE = re.compile(_STRING + _SPACE + rb"([,\]])" + _SPACE)
_MARK = {"\0": 0}  # stands for what was read apart


def read_pieces(path: Path) -> tuple[dict[str, Any], dict[str, int], NDArray[np.int32]]:
    """The file without vocabulary and merges, the vocabulary, and the merges as ids, shape (merges, 2).

    Raises:
        BadCheckpoint: it is no JSON, or a merge names an unknown token.
        Unsupported: it has no vocabulary or merges, as BPE has.
    """
    data = path.read_bytes()
    vocab_at, merges_at = _VOCAB.search(data), _MERGES.search(data)
    if vocab_at is None or merges_at is None:
        parse_json_object(data, path)
        raise Unsupported(f"{path}: expected byte-pair encoding, found no 'vocab' or no 'merges'")
    try:
        vocab, vocab_end = _vocab(data, vocab_at.end())
        merges, merges_end = _merges(data, merges_at.end(), vocab)
    except ValueError as error:
        raise BadCheckpoint(f"{path}: {error}") from None
    first, second = sorted(
        [
            (vocab_at.start(1), vocab_end, json.dumps(_MARK).encode()),
            (merges_at.start(1), merges_end, b"[0]"),
        ]
    )
    middle = data[first[1] : second[0]]
    rest = data[: first[0]] + first[2] + middle + second[2] + data[second[1] :]
    return _checked(rest, path), vocab, merges


def _checked(data: bytes, path: Path) -> dict[str, Any]:
    rest = parse_json_object(data, path)
    model = rest.get("model")
    if not isinstance(model, dict) or model.get("vocab") != _MARK or model.get("merges") != [0]:
        raise BadCheckpoint(f"{path}: 'vocab' or 'merges' is not where BPE has it, in 'model'")
    return rest


def _vocab(data: bytes, position: int) -> tuple[dict[str, int], int]:
    vocab: dict[str, int] = {}
    if data[position : position + 1] == b"}":
        return vocab, position + 1
    count = 0
    for match in _each(_TOKEN, data, position, b"}"):
        vocab[_text(match[1])] = int(match[2])
        count, position = count + 1, match.end(3)
    if len(vocab) != count:
        raise ValueError("a token occurs twice in 'vocab'")
    return vocab, position


def _merges(data: bytes, position: int, vocab: dict[str, int]) -> tuple[NDArray[np.int32], int]:
    """Merges are pairs; older files write one as a string with a space between."""
    ids = array("i")
    if data[position : position + 1] == b"]":
        return np.zeros((0, 2), np.int32), position + 1
    pairs = data[position : position + 1] == b"["
    for match in _each(_PAIR if pairs else _LINE, data, position, b"]"):
        left, right = (_text(match[1]), _text(match[2])) if pairs else _text(match[1]).split(" ", 1)
        try:
            ids.extend((vocab[left], vocab[right]))
        except KeyError as error:
            raise ValueError(f"a merge of {left!r} and {right!r}: the token {error} is unknown") from None
        position = match.end(match.lastindex or 0)
    return np.frombuffer(ids, np.int32).reshape(-1, 2), position


def _each(pattern: re.Pattern[bytes], data: bytes, position: int, close: bytes) -> Iterator[re.Match[bytes]]:
    """Items that follow one another from `position` up to the one that `close` ends."""
    while match := pattern.match(data, position):
        yield match
        if match[match.lastindex or 0] == close:
            return
        position = match.end()
    raise ValueError(f"not as expected at byte {position}: {data[position : position + 40]!r}")


def _text(raw: bytes) -> str:
    if b"\\" not in raw:
        return raw.decode()
    text: str = json.loads(b'"' + raw + b'"')
    text.encode()  # a lone surrogate is no text
    return text
