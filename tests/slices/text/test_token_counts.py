"""A tokenizer read in pieces and cut to what a text can use counts as the whole one does."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from slices.errors import BadCheckpoint, SliceError, Unsupported
from slices.text.corpus import Corpus
from slices.text.token_counts import count_tokens, reduced
from slices.tokenizer.bpe_stream import read_pieces
from slices.tokenizer.files import BpeTokenizer, read_bpe
from tests.slices.gguf_fixtures import SAMPLES, tokenizer_json

RAW = tokenizer_json()
BPE = BpeTokenizer(RAW, RAW["model"]["vocab"])
WHOLE = Tokenizer.from_str(json.dumps(RAW))


def counted(documents: list[str]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for document in documents:
        counts.update(WHOLE.encode(document, add_special_tokens=False).ids)
    return counts


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_count_as_before(name: str) -> None:
    assert count_tokens(BPE, Corpus("files", (SAMPLES[name], "a"))) == counted([SAMPLES[name], "a"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("etaoin shrdlu▁\n<>|été=🙂"), max_size=40), min_size=1, max_size=3))
def test_any_text_counts_as_before(documents: list[str]) -> None:
    assert count_tokens(BPE, Corpus("files", tuple(documents))) == counted(documents)


def test_little_is_left_of_it() -> None:
    vocab, merges = reduced(BPE, ["the dog"])
    assert len(merges) < len(BPE.merges) // 4
    assert {"the", "<bos>", "<0x41>", "<unk>"} & BPE.vocab.keys() <= vocab.keys()


def test_other_normalizers_keep_every_token() -> None:
    """Where text is rewritten before it is merged, its characters prove nothing."""
    lower = BpeTokenizer(RAW | {"normalizer": {"type": "Lowercase"}}, BPE.vocab)
    assert reduced(lower, ["THE DOG"])[0] == BPE.vocab
    whole = Tokenizer.from_str(json.dumps(lower.raw))
    assert count_tokens(lower, Corpus("files", ("THE DOG",))) == Counter(whole.encode("THE DOG").ids)


def written(folder: Path, text: str) -> Path:
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    return folder / "tokenizer.json"


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize("merges_first", [True, False])
@pytest.mark.parametrize("lines", [True, False], ids=["a b", "[a, b]"])
def test_read_in_pieces(
    tmp_path: Path, indent: int | None, escaped: bool, merges_first: bool, lines: bool
) -> None:
    """Any way to write the file down, and a token that looks like its parts."""
    model: dict[str, Any] = dict(RAW["model"])
    model["vocab"] = model["vocab"] | {'"vocab": {': len(model["vocab"]), '],["': len(model["vocab"]) + 1}
    if lines:
        model["merges"] = [" ".join(merge) for merge in model["merges"]]
    if merges_first:
        model = {"merges": model.pop("merges"), **model}
    path = written(tmp_path, json.dumps(RAW | {"model": model}, indent=indent, ensure_ascii=escaped))
    rest, vocab, merges = read_pieces(path)
    assert vocab == model["vocab"]
    assert (merges == BPE.merges).all()
    assert {**rest, "model": None} == {**RAW, "model": None}
    assert read_bpe(tmp_path).ranks == BPE.ranks


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('"vocab": {', '"vocab": {"<pad>": 0, ', BadCheckpoint),
        ('"vocab": {', '"vocab": {"x": -1, ', BadCheckpoint),
        ('"vocab": {', '"vocab": {"x": "y", ', BadCheckpoint),
        ('"vocab": {', '"vocab": {"\\ud800": 999, ', BadCheckpoint),
        ('"vocab": {', '"words": {', Unsupported),
        ('"merges": [', '"merges": [["t", "unheard of"], ', BadCheckpoint),
        ('"merges": [', '"merges": [["t"], ', BadCheckpoint),
        ('"merges": [', '"merges": ["th", ', BadCheckpoint),
        ('"merges": [', '"merges": 3, "more": [', Unsupported),
        ('"model": {', '"model": {"vocab": {}, ', BadCheckpoint),
        ('"model": {', '"other": {"vocab": {}, "merges": []}, "model": {', BadCheckpoint),
        ("{", "[{", BadCheckpoint),
        ('"type": "BPE"', '"type": "WordPiece"', Unsupported),
        ('"added_tokens": [', '"added_tokens": [3, ', BadCheckpoint),
        ('"single_word": false', '"single_word": "maybe"', BadCheckpoint),
    ],
)
def test_damage_is_refused(tmp_path: Path, old: str, new: str, error: type[SliceError]) -> None:
    text = json.dumps(RAW)
    assert old in text
    written(tmp_path, text.replace(old, new, 1))
    with pytest.raises(error):
        count_tokens(read_bpe(tmp_path), Corpus("files", ("a",)))
