"""Hashed word n-grams: scikit-learn's feature indices, which stored heads depend on, in less time."""

import numpy as np
import pytest

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


def test_rows_are_those_of_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    from sklearn.feature_extraction.text import HashingVectorizer

    theirs = HashingVectorizer(
        n_features=DIM, ngram_range=(1, 2), alternate_sign=False, binary=True,
        token_pattern=r"(?u)\b\w+\b|[^\w\s]", dtype=np.float32,
    ).transform([text.encode("utf-8", "replace").decode("utf-8")[:400] for text in TEXTS])  # fmt: skip
    ours = WordNgramEmbedder().embed([text[:400] for text in TEXTS])
    assert ours.shape == theirs.shape and ours.dtype == np.float32
    assert (ours.indptr == theirs.indptr).all() and (ours.indices == theirs.indices).all()
    assert ours.data == pytest.approx(theirs.data, abs=1e-6)
    assert ours[[1, 2]].nnz == 0 < ours.nnz


def test_no_texts_are_no_rows() -> None:
    assert WordNgramEmbedder().embed([]).shape == (0, DIM)
