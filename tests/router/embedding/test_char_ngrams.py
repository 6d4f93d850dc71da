"""Character n-grams: the same hashes on every machine, and more robust to typos than words."""

import hashlib

import numpy as np
import pytest

from router.embedding.char_ngrams import NGRAM_SIZES, CharNgramEmbedder
from router.embedding.word_ngrams import WordNgramEmbedder
from router.training.perturbations import add_typos
from tests.router.router_world import PAIRS

_INDICES_SHA = "2ae072a79944"  # a prefix; the weights of stored heads depend on it
TEXTS = ["Is x = 3?", "", " \n", "\x00\ud800", "a " * 10_000, "é" * 3, "क्या यह अनुबंध है?"]


def test_rows_have_length_one() -> None:
    rows = CharNgramEmbedder().embed(TEXTS)
    assert rows.shape == (len(TEXTS), 2**18) and rows.dtype == np.float32
    lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    assert lengths == pytest.approx([1, 0, 0, 1, 1, 1, 1], abs=1e-6)
    assert CharNgramEmbedder().embed([]).shape == (0, 2**18)


def test_every_ngram_counts_once() -> None:
    assert CharNgramEmbedder().embed(["ab"]).nnz == 3  # " ab", "ab " and " ab "
    long = "law "
    assert (
        CharNgramEmbedder().embed([long * 2]).nnz
        == CharNgramEmbedder().embed([long * 20]).nnz
        > len(NGRAM_SIZES)
    )


def test_indices_are_the_same_on_every_machine() -> None:
    columns = CharNgramEmbedder().embed(["Is a verbal contract enforceable?"]).indices
    assert hashlib.sha256(np.sort(columns).astype("<i4").tobytes()).hexdigest().startswith(_INDICES_SHA)


def test_case_and_whitespace_do_not_matter_but_punctuation_does() -> None:
    rows = CharNgramEmbedder().embed(["Tort law", " tort\n LAW ", "tort law?"])
    assert (rows[[0]] != rows[[1]]).nnz == 0 < (rows[[0]] != rows[[2]]).nnz


def test_a_typo_changes_char_ngrams_less_than_words() -> None:
    rng, texts = np.random.default_rng(0), [text for text, _ in PAIRS]
    misspelled = [add_typos(text, rng) for text in texts]

    def mean_cosine(embedder: CharNgramEmbedder | WordNgramEmbedder) -> float:
        clean, perturb_all = embedder.embed(texts), embedder.embed(misspelled)
        return float(np.asarray(clean.multiply(perturb_all).sum(axis=1)).mean())

    assert mean_cosine(CharNgramEmbedder()) > mean_cosine(WordNgramEmbedder()) + 0.05
