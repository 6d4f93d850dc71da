"""A cut vocabulary encodes what it kept as before, and everything else without loss."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from slices.cut.vocabulary import by_generality, choose_rows, required_ids
from slices.errors import BadCheckpoint, InvalidCut, NotFound, Unsupported
from slices.tokenizer.files import (
    BpeTokenizer,
    TokenIdMap,
    cut_tokenizer,
    read_bpe,
    remap_token_ids,
    token_ids,
)
from tests.picos import tokenizer_json

RAW = tokenizer_json() | {
    "decoder": {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ],
    }
}
BPE = BpeTokenizer(RAW, RAW["model"]["vocab"])
ROWS = len(BPE.vocab)
PARENT = Tokenizer.from_str(json.dumps(RAW))
WORDS = [
    "the",
    " quick",
    "brown",
    " dog",
    "s",
    "\n",
    "==",
    "def ",
    "é",
    "∑",
    "日本",
    "  ",
    "<bos>",
    "return",
    "x²",
]
texts = st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=12).map("".join)


def counted(*documents: str) -> Counter[int]:
    return Counter(i for document in documents for i in PARENT.encode(document).ids)


def cut_to(spec: str, counts: Counter[int]) -> tuple[Tokenizer, TokenIdMap]:
    rows = choose_rows(spec, BPE, counts, ROWS, [1])
    assert rows is not None
    ids = TokenIdMap(rows, ROWS)
    return Tokenizer.from_str(json.dumps(cut_tokenizer(BPE, ids))), ids


@settings(max_examples=200, deadline=None)
@given(seen=texts, other=texts)
def test_kept_text_keeps_its_tokens_and_any_text_survives(seen: str, other: str) -> None:
    after, ids = cut_to("domain", counted(seen))
    assert after.encode(seen).tokens == PARENT.encode(seen).tokens
    assert after.encode(seen).ids == [ids[old] for old in PARENT.encode(seen).ids]
    whole = PARENT.decode(PARENT.encode(other).ids, skip_special_tokens=False)
    assert after.decode(after.encode(other).ids, skip_special_tokens=False) == whole
    kept = {after.id_to_token(i) for i in range(after.get_vocab_size())}
    if set(PARENT.encode(other).tokens) <= kept:
        assert after.encode(other).tokens == PARENT.encode(other).tokens


def test_added_and_byte_tokens_always_stay() -> None:
    after, ids = cut_to("domain", Counter())
    for old, token in BPE.added.items():
        assert after.token_to_id(token) == ids[old]
    assert len(BPE.bytes) == 256
    assert all(ids.get(old) is not None for old in BPE.bytes)


def test_size_is_exact() -> None:
    counts = counted("the quick brown dog")
    least = len([i for i in required_ids(BPE, [1]) if i < ROWS])
    for size in (least, least + 1, least + 20, ROWS - 1, ROWS):
        rows = choose_rows(str(size), BPE, counts, ROWS, [1])
        assert rows is not None
        assert len(rows) == size


def test_generality_puts_the_texts_own_characters_first() -> None:
    order = list(by_generality(BPE, counted("the the")))
    own = [i for i in sorted(BPE.tokens) if set(BPE.tokens[i]) <= set("the▁")]
    assert order[: len(own)] == own
    assert order[len(own) :] == [i for i in sorted(BPE.tokens) if i not in own]


@pytest.mark.parametrize(
    ("spec", "match"), [("0", "must stay"), (str(ROWS + 1), "has only"), ("-5", "expected all")]
)
def test_impossible_sizes(spec: str, match: str) -> None:
    with pytest.raises(InvalidCut, match=match):
        choose_rows(spec, BPE, Counter(), ROWS, [])


def test_ids_are_renumbered_everywhere() -> None:
    ids = TokenIdMap(choose_rows("domain", BPE, Counter(), ROWS, [1]), ROWS)  # type: ignore[arg-type]
    config = {
        "eos_token_id": [1, 106],
        "hidden_size": 106,
        "x": {"boi_token_index": 4},
        "flag_token_id": None,
    }
    assert token_ids(config) == {1, 106, 4}
    assert remap_token_ids(config, ids) == {
        "eos_token_id": [ids[1], ids[106]],
        "hidden_size": 106,
        "x": {"boi_token_index": ids[4]},
        "flag_token_id": None,
    }
    assert ids[ROWS + 2] == len(ids.kept) + 2
    gone = next(i for i in range(ROWS) if ids.get(i) is None)
    with pytest.raises(BadCheckpoint, match=f"token id {gone} "):
        remap_token_ids({"pad_token_id": gone}, ids)


def test_template_is_renumbered() -> None:
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
    }
    bpe = BpeTokenizer(RAW | {"post_processor": template}, RAW["model"]["vocab"])
    ids = TokenIdMap(choose_rows("domain", bpe, Counter(), ROWS, [1]), ROWS)  # type: ignore[arg-type]
    cut = cut_tokenizer(bpe, ids)
    assert cut["post_processor"]["special_tokens"]["<bos>"]["ids"] == [ids[2]]
    assert Tokenizer.from_str(json.dumps(cut)).encode("a").tokens[0] == "<bos>"


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no tokenizer\.json"):
        read_bpe(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    with pytest.raises(Unsupported, match="byte-pair encoding"):
        read_bpe(tmp_path)
