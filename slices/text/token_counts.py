"""Token counts of a text, with a tokenizer reduced to the tokens that the text can contain.

A merged token is a run of the text's own characters, so a token that holds a run of characters which the
text does not have can never occur, nor any merge that leads to it. Leaving those out changes no count and
spares most of what the tokenizers library needs for Gemma's 262 thousand tokens.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slices.errors import BadCheckpoint
from slices.text.corpus import Corpus
from slices.tokenizer.files import BpeTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BITS = 24  # of the table that runs of characters are marked in; two runs may share a mark
_SIZES = (1, 2, 3, 5, 8)  # characters in a run
_PART = 2**15  # tokens
_OPTIONS = (
    "unk_token", "dropout", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
    "ignore_merges",
)  # fmt: skip
_SPACED = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def count_tokens(bpe: BpeTokenizer, text: Corpus) -> Counter[int]:
    """Occurrences by token id."""
    tokenizer = _tokenizer(bpe, text.documents)
    counts: Counter[int] = Counter()
    for document in text.documents:
        counts.update(tokenizer.encode(document, add_special_tokens=False).ids)
    return counts


def _tokenizer(bpe: BpeTokenizer, documents: Sequence[str]) -> "Tokenizer":
    """One that encodes the documents, and perhaps nothing else, as the whole one would; ids are the same."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    model = {**bpe.raw["model"], "merges": []}
    options = {key: model[key] for key in _OPTIONS if model.get(key) is not None}
    named = {token: i for i, token in bpe.tokens.items() if i in bpe.added or token == model.get("unk_token")}
    vocab, merges = reduced(bpe, documents)
    try:
        tokenizer = Tokenizer.from_str(json.dumps({**bpe.raw, "model": {**model, "vocab": named}}))
        tokenizer.model = BPE(vocab, merges, **options)  # through JSON it would take three times the memory
    except Exception as error:
        if type(error) not in (Exception, TypeError, ValueError):  # the library raises nothing narrower
            raise
        raise BadCheckpoint(f"tokenizer.json: the tokenizers library refuses it: {error}") from None
    return tokenizer


def reduced(bpe: BpeTokenizer, documents: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The tokens that can occur in the documents, with their ids, and the merges that can make them."""
    keeps = np.ones(max(bpe.tokens) + 1, bool)
    if _by_characters(bpe):
        keeps = _possible(bpe, documents)
        unknown = bpe.vocab.get(bpe.raw["model"].get("unk_token"))
        keeps[[i for i in (*bpe.bytes, *bpe.added, unknown) if i in bpe.tokens]] = True
    vocab = {token: i for token, i in bpe.vocab.items() if keeps[i]}
    merges = bpe.merges[keeps[bpe.merges].all(axis=1)]
    left, right = ([bpe.tokens[i] for i in side.tolist()] for side in merges.T)
    return vocab, [pair for pair in zip(left, right, strict=True) if pair[0] + pair[1] in vocab]


def _by_characters(bpe: BpeTokenizer) -> bool:
    """Whether the only thing done to the text before merging is to split it and to mark its spaces."""
    splits = bpe.raw.get("pre_tokenizer")
    split = splits is None or (isinstance(splits, dict) and splits.get("type") == "Split")
    return split and bpe.raw.get("normalizer") in (None, _SPACED)


def _possible(bpe: BpeTokenizer, documents: Sequence[str]) -> NDArray[np.bool_]:
    """By id, whether each short run of characters in the token occurs in the documents."""
    tokens = [token for token in bpe.vocab if token]
    occurs = np.ones(len(tokens), bool)
    for size in _SIZES:
        table = np.zeros(2**_BITS, bool)
        for document in documents:
            spaced = document.replace(" ", "▁") if bpe.raw.get("normalizer") else document
            table[_runs(_codes(spaced), size)] = True
        for start in range(0, len(tokens), _PART):
            occurs[start : start + _PART] &= _spelled(tokens[start : start + _PART], size, table)
    keeps = np.zeros(max(bpe.tokens) + 1, bool)
    keeps[[bpe.vocab[token] for token, is_there in zip(tokens, occurs, strict=True) if is_there]] = True
    return keeps


def _spelled(tokens: Sequence[str], size: int, table: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether all runs of `size` characters inside each token are marked; no token is empty."""
    lengths = np.array([len(token) for token in tokens])
    ends = np.cumsum(lengths)
    codes = _codes("".join(tokens))
    room = np.repeat(ends, lengths) - np.arange(len(codes))  # characters left in the token
    marked = np.ones(len(codes), bool)
    marks = table[_runs(codes, size)]
    marked[: len(marks)] = marks
    return np.logical_and.reduceat(marked | (room < size), ends - lengths)


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _runs(codes: NDArray[np.uint32], size: int) -> NDArray[np.uint32]:
    """A mark for each run of `size` characters."""
    count = max(0, len(codes) - size + 1)
    marks = np.zeros(count, np.uint32)
    for at in range(size):
        marks = marks * np.uint32(0x9E3779B1) + codes[at : at + count]
    return (marks * np.uint32(0x85EBCA6B)) >> np.uint32(32 - _BITS)
