"""Probes: what is asked, what counts as right, and models that know all, nothing, or cannot stop."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from slices.probes.needle import find_needles, needles
from slices.probes.prose import drift, repetition
from slices.probes.run import differences, probe, worse
from slices.probes.writing import arithmetic, brackets, end_turns
from slices.runtime import Piece, Sampling
from slices.runtimes.scripted import ScriptedRuntime

TEXTS = [("The quick brown fox jumps over the lazy dog and then rests for a while. " * 8)] * 3


@dataclass
class Solver(ScriptedRuntime):
    """Does every probe right, but the share `fails` of them."""

    fails: float = 0.0

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        self.seen.append(prompt)
        if random.Random(prompt).random() < self.fails:
            yield Piece("zzz qqq zzz qqq zzz qqq zzz qqq", 8, "length")
            return
        known = {item.prompt: item.answer for item in [*arithmetic(20, 0), *brackets(20, 0)]}
        key = re.search(r"pass key is (\d+)", prompt)
        text = known.get(prompt) or (key[1] if key else "the lazy dog jumps over a brown fox")
        yield Piece(f"{text}\n", 3, "stop")


def test_items_are_the_same_for_a_seed_and_others_for_another() -> None:
    assert arithmetic(5, 1) == arithmetic(5, 1) != arithmetic(5, 2)
    assert brackets(5, 1) == brackets(5, 1) != brackets(5, 2)


def test_every_answer_is_right_by_hand() -> None:
    for item in arithmetic(50, 3):
        question = item.prompt.split("\n\n")[-1]
        first, second = (int(word) for word in question.split() if word.isdigit())
        expected = first - second if " gives " in question else first + second
        assert item.answer == str(expected)
    for item in brackets(50, 3):
        opened = [char for char in item.prompt.split("\n")[-1] if char in "([{"]
        assert item.answer == "".join({"(": ")", "[": "]", "{": "}"}[char] for char in reversed(opened))


def test_a_model_that_knows_everything_and_one_that_knows_nothing() -> None:
    knows = probe(Solver(), TEXTS, 20, (300,))
    best = {"arithmetic": 1, "brackets": 1, "ending": 1, "repetition": 0, "drift": 0, "needle_300": 1}
    assert {name: each.share.value for name, each in knows.items()} == best
    fool = probe(Solver(fails=1), TEXTS, 20, (300,))
    found = {name: each.share.value for name, each in fool.items()}
    assert found == {**dict.fromkeys(best, 0), "drift": 1, "repetition": 1}
    assert {name: len(each.scores) for name, each in fool.items()}["needle_300"] == 10


def test_a_worse_model_is_flagged_on_every_probe_and_an_equal_one_on_none() -> None:
    knows, fool, same = (probe(Solver(fails=each), TEXTS * 7, 20, (300,)) for each in (0, 1, 0))
    assert set(worse(differences(fool, knows))) == set(knows)
    assert worse(differences(knows, fool)) == worse(differences(same, knows)) == []
    assert all(each.value == 0 and each.p == 1 for each in differences(same, knows).values())


def test_what_was_not_asked_alike_is_not_compared() -> None:
    few, many = probe(Solver(), TEXTS, 5, (300,)), probe(Solver(), TEXTS, 20, (300,))
    assert set(differences(few, many)) <= {"repetition", "drift"}  # three texts, whatever the count


@pytest.mark.parametrize("length", [200, 1500])
def test_a_needle_is_there_once_at_every_depth_and_the_text_fits(length: int) -> None:
    model = ScriptedRuntime()
    found = needles(model, TEXTS, length, 4, seed=1)
    assert len({key for _, key in found}) == 4
    for number, (prompt, key) in enumerate(found):
        assert prompt.count(key) == 2
        assert length - 40 <= len(model.encode(prompt)) <= length
        assert prompt.endswith("What is the pass key? The pass key is")
        depth = prompt.find(key) / len(prompt)
        assert length < 1000 or abs(depth - (number + 0.5) / 4) < 0.1
    assert needles(model, TEXTS, length, 4, seed=1) == found


def test_a_wrong_number_is_no_needle() -> None:
    assert find_needles(ScriptedRuntime(default="12345 or so"), TEXTS, 300, 5).share.value == 0


@pytest.mark.parametrize(
    ("told", "ends"), [("12\nQuestion: more", 1), ("12 and on and on", 0), ("", 0), ("\nlate", 0)]
)
def test_a_turn_that_ends(told: str, ends: float) -> None:
    class Long(ScriptedRuntime):
        def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
            yield Piece(told, 8, "length")

    assert end_turns(Long(), 4, 0).share.value == ends


def test_arithmetic_goes_from_sums_of_digits_to_word_problems() -> None:
    asked = [item.prompt.split("\n\n")[-1] for item in arithmetic(30, 0)]
    assert all(re.fullmatch(r"\d \+ \d =", each) for each in asked[::3])
    assert all(re.fullmatch(r"\d+ \+ \d+ =", each) for each in asked[1::3])
    assert any(len(each) > len("9 + 9 =") for each in asked[1::3])
    assert all(each.startswith("Question: ") for each in asked[2::3])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", 1),  # nothing is no variety
        ("one two three", 1),
        ("one two three four five", 0),
        ("one two one two one two", 1 / 3),
        ("zun tovo dretti furr vimfe", 1),  # nor is babble
        ("one zun tovo dretti furr", 1 / 2),
    ],
)
def test_repetition(text: str, found: float) -> None:
    assert repetition(text, {"one", "two", "three", "four", "five"}) == pytest.approx(found)


def test_drift() -> None:
    assert drift("le chien brun, the dog", {"the", "dog"}) == pytest.approx(3 / 5)
    assert drift("", {"the"}) == drift("12 ###", {"the"}) == 1
