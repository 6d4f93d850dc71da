"""The tasks that are written: what is asked, what counts as right, and a model that repeats itself."""

import pytest

from slices.measure.generative import arithmetic, brackets, measure_writing, repetition, share
from slices.runtime import ScriptedRuntime

TEXTS = [("The quick brown fox jumps over the lazy dog and then rests for a while. " * 8)] * 3


def test_items_are_the_same_for_a_seed_and_others_for_another() -> None:
    assert arithmetic(5, 1) == arithmetic(5, 1) != arithmetic(5, 2)
    assert brackets(5, 1) == brackets(5, 1) != brackets(5, 2)


def test_every_answer_is_right_by_hand() -> None:
    for item in arithmetic(50, 3):
        question = item.prompt.split("\n\n")[-1]
        first, second = (int(word) for word in question.split() if word.isdigit())
        expected = first + second if " gets " in question else first - second
        assert item.answer == str(expected)
    for item in brackets(50, 3):
        opened = [char for char in item.prompt.split("\n")[-1] if char in "([{"]
        assert item.answer == "".join({"(": ")", "[": "]", "{": "}"}[char] for char in reversed(opened))


def test_a_model_that_knows_everything_and_one_that_knows_nothing() -> None:
    replies = {item.prompt: f" {item.answer}\nmore" for item in arithmetic(10, 0)}
    replies |= {item.prompt: f"{item.answer}\n" for item in brackets(10, 0)}
    knows = measure_writing(ScriptedRuntime(replies, default="all new words in this one here"), TEXTS, 10)
    assert (knows.arithmetic.value, knows.brackets.value, knows.repetition.value) == (1, 1, 0)
    fool = measure_writing(ScriptedRuntime(default="a b c d a b c d a b c d"), TEXTS, 10)
    assert (fool.arithmetic.value, fool.brackets.value) == (0, 0)
    assert fool.repetition.value == pytest.approx(5 / 9)


@pytest.mark.parametrize(("text", "found"), [("", 0), ("one two three", 0), ("a a a a a a", 2 / 3)])
def test_repetition(text: str, found: float) -> None:
    assert repetition(text) == pytest.approx(found)


def test_shares_have_errors() -> None:
    found = share([1, 0, 1, 0])
    assert found.value == 0.5
    assert found.stderr == pytest.approx((1 / 3 / 4) ** 0.5)
