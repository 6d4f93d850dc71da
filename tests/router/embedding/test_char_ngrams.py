"""Runs of letters: hashed the same everywhere, and near where words are apart."""

import hashlib

import numpy as np
import pytest

from router.embedding.char_ngrams import LENGTHS, LetterEmbedder
from router.embedding.word_ngrams import WordEmbedder
from router.training.perturbations import slips
from tests.router.router_world import PAIRS

_PLACES_SHA = "2ae072a79944"  # of the beginning; stored heads count on it
TEXTS = ["Is x = 3?", "", " \n", "\x00\ud800", "a " * 10_000, "é" * 3, "क्या यह अनुबंध है?"]


def test_rows_have_length_one() -> None:
    rows = LetterEmbedder().embed(TEXTS)
    assert rows.shape == (len(TEXTS), 2**18) and rows.dtype == np.float32
    lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    assert lengths == pytest.approx([1, 0, 0, 1, 1, 1, 1], abs=1e-6)
    assert LetterEmbedder().embed([]).shape == (0, 2**18)


def test_every_run_counts_once() -> None:
    assert LetterEmbedder().embed(["ab"]).nnz == 3  # " ab", "ab " and " ab "
    long = "law "
    assert LetterEmbedder().embed([long * 2]).nnz == LetterEmbedder().embed([long * 20]).nnz > len(LENGTHS)


def test_places_are_the_same_on_every_machine() -> None:
    columns = LetterEmbedder().embed(["Is a verbal contract enforceable?"]).indices
    assert hashlib.sha256(np.sort(columns).astype("<i4").tobytes()).hexdigest().startswith(_PLACES_SHA)


def test_case_and_space_do_not_matter_but_signs_do() -> None:
    rows = LetterEmbedder().embed(["Tort law", " tort\n LAW ", "tort law?"])
    assert (rows[[0]] != rows[[1]]).nnz == 0 < (rows[[0]] != rows[[2]]).nnz


def test_a_slip_changes_letters_less_than_words() -> None:
    draw, texts = np.random.default_rng(0), [text for text, _ in PAIRS]
    slipped = [slips(text, draw) for text in texts]

    def kept(embedder: LetterEmbedder | WordEmbedder) -> float:
        own, other = embedder.embed(texts), embedder.embed(slipped)
        return float(np.asarray(own.multiply(other).sum(axis=1)).mean())

    assert kept(LetterEmbedder()) > kept(WordEmbedder()) + 0.05
