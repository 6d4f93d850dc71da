"""Noise is drawn, so the same seed gives the same text, and it never invents or loses too much."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.training.perturbations import NOISE, SLIP_EVERY, fragment, other_case, reworded, slips

TEXT = "How do enzymes lower the activation energy of a reaction?"


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", NOISE)
def test_the_same_seed_gives_the_same_text(kind: str) -> None:
    assert NOISE[kind](TEXT, draw(3)) == NOISE[kind](TEXT, draw(3))
    assert len({NOISE[kind](TEXT, draw(seed)) for seed in range(30)}) > 2


@given(st.text(max_size=200), st.integers(0, 100))
def test_slips_are_few_and_any_text_will_do(text: str, seed: int) -> None:
    found = slips(text, draw(seed))
    most = max(1, len(text) // SLIP_EVERY)
    assert abs(len(found) - len(text)) <= most
    if not any(letter.isalpha() for letter in text):
        assert found == text


def test_every_kind_of_slip_happens() -> None:
    found = {slips("abc", draw(seed)) for seed in range(200)}
    assert found >= {"bac", "bc", "aabc", "sbc"}


def test_case_changes_no_word() -> None:
    for seed in range(20):
        said = other_case("Is H2O, wet?", draw(seed))
        assert "".join(filter(str.isalnum, said)).lower() == "ish2owet"


@given(st.text(max_size=200), st.integers(0, 100))
def test_a_fragment_is_part_of_the_text(text: str, seed: int) -> None:
    found = fragment(text, draw(seed))
    assert found in " ".join(text.split()) or found == text
    assert bool(found) == bool(text)
    assert len(found.split()) <= 8


@given(st.text(max_size=200), st.integers(0, 100))
def test_another_wording_keeps_every_word(text: str, seed: int) -> None:
    found = reworded(text, draw(seed))
    assert text.rstrip()[1:] in found
    assert len(found) <= len(text) + 60


def test_a_question_within_a_sentence_begins_small_and_a_name_does_not() -> None:
    found = {reworded("How so?", draw(seed)) for seed in range(60)}
    assert "Can you tell me: how so?" in found and "How so? Answer in one short paragraph." in found
    assert "Can you tell me: DNA?" in {reworded("DNA?", draw(seed)) for seed in range(60)}
