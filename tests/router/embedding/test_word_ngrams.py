"""Hashed word n-grams: those of scikit-learn's analyzer, by a hash of their own."""

from zlib import crc32

import numpy as np
import pytest

from router.embedding.embedder import truncate_middle
from router.embedding.word_ngrams import DIM, WordNgramEmbedder

TEXTS = [
    "Is x = 3?",
    "",
    " \n",
    "\x00\ud800",
    "law law law",
    "naïve क्या यह?",
    "a b " * 3000,
    "It isn't: {x: 1}",
]


def test_ngrams_are_those_of_scikit_learn() -> None:
    text_features = pytest.importorskip("sklearn.feature_extraction.text")
    pattern = r"(?u)\b\w+\b|[^\w\s]"
    analyze = text_features.HashingVectorizer(ngram_range=(1, 2), token_pattern=pattern).build_analyzer()
    rows = WordNgramEmbedder().embed(TEXTS)
    assert rows.shape == (len(TEXTS), DIM) and rows.dtype == np.float32
    for row, text in enumerate(TEXTS):
        expected = {crc32(ngram.encode()) % DIM for ngram in analyze(truncate_middle(text))}
        start, end = rows.indptr[row : row + 2]
        assert set(rows.indices[start:end].tolist()) == expected
        assert rows.data[start:end] == pytest.approx(max(1, len(expected)) ** -0.5)


def test_no_texts_are_no_rows() -> None:
    assert WordNgramEmbedder().embed([]).shape == (0, DIM)
