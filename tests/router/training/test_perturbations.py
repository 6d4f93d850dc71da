"""Perturbations: reproducible by seed, and bounded in what they change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.training.perturbations import (
    CHARS_PER_TYPO,
    PERTURBATIONS,
    add_small_talk,
    add_typos,
    change_case,
    take_fragment,
)

TEXT = "How do enzymes lower the activation energy of a reaction?"


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_the_same_seed_gives_the_same_text(kind: str) -> None:
    assert PERTURBATIONS[kind](TEXT, rng(3)) == PERTURBATIONS[kind](TEXT, rng(3))
    assert len({PERTURBATIONS[kind](TEXT, rng(seed)) for seed in range(30)}) > 2


@given(st.text(max_size=200), st.integers(0, 100))
def test_typos_are_few_in_any_text(text: str, seed: int) -> None:
    perturbed = add_typos(text, rng(seed))
    limit = max(1, len(text) // CHARS_PER_TYPO)
    assert abs(len(perturbed) - len(text)) <= limit
    if not any(letter.isalpha() for letter in text):
        assert perturbed == text


def test_every_kind_of_typo_occurs() -> None:
    found = {add_typos("abc", rng(seed)) for seed in range(200)}
    assert found >= {"bac", "bc", "aabc", "sbc"}


def test_case_changes_no_word() -> None:
    for seed in range(20):
        changed = change_case("Is H2O, wet?", rng(seed))
        assert "".join(filter(str.isalnum, changed)).lower() == "ish2owet"


@given(st.text(max_size=200), st.integers(0, 100))
def test_a_fragment_is_part_of_the_text(text: str, seed: int) -> None:
    found = take_fragment(text, rng(seed))
    assert found in " ".join(text.split()) or found == text
    assert bool(found) == bool(text)
    assert len(found.split()) <= 8


@given(st.text(max_size=200), st.integers(0, 100))
def test_another_wording_keeps_every_word(text: str, seed: int) -> None:
    found = add_small_talk(text, rng(seed))
    assert text.rstrip()[1:] in found
    assert len(found) <= len(text) + 60


def test_a_question_within_a_sentence_begins_small_and_a_name_does_not() -> None:
    found = {add_small_talk("How so?", rng(seed)) for seed in range(60)}
    assert "Can you tell me: how so?" in found and "How so? Answer in one short paragraph." in found
    assert "Can you tell me: DNA?" in {add_small_talk("DNA?", rng(seed)) for seed in range(60)}
