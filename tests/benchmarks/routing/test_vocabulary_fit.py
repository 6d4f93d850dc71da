"""Ratios of token counts of two small tokenizers, and the sentences that are counted."""

import pytest
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks.routing.vocabulary_fit import SENTENCES, measure


def words(*known: str) -> Tokenizer:
    """Known words are one token; others are spelled."""
    vocabulary = [*"abcdefgh", *known]
    tokenizer = Tokenizer(models.WordPiece({word: row for row, word in enumerate(vocabulary)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def test_the_share_over_a_limit() -> None:
    ours, theirs = words("abc", "a", "##b", "##c"), words("abc", "##b", "##c", "ab")
    found = measure(["abc", "ab", "abc ab", "ab ab"], ours, theirs)
    assert found["n"] == 4
    assert found["ratio"]["min"] == 1
    assert found["ratio"]["max"] == 2
    assert found["over"]["1.4"] == pytest.approx(3 / 4)
    assert found["over"]["1.75"] == pytest.approx(2 / 4)


def test_ten_sentences_of_each_language() -> None:
    sentences = yaml.safe_load(SENTENCES.read_text(encoding="utf-8"))
    assert set(sentences) == {"en", "de", "fr", "es", "pt", "zh", "ja", "ru", "hi"}
    for language, texts in sentences.items():
        assert len(set(texts)) == 10, language
        assert all(isinstance(text, str) for text in texts)
