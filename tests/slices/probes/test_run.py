"""Probes: items, scoring, and models that solve all, none, or do not stop."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from slices.probes.degeneration import oov_rate, repetition
from slices.probes.needle_in_a_haystack import needle_in_a_haystack, needle_prompts
from slices.probes.run import differences, run_probes, significantly_worse
from slices.probes.synthetic_tasks import arithmetic_items, bracket_items, end_of_turn
from slices.runtime import Piece, Sampling
from slices.runtimes.scripted import ScriptedRuntime

TEXTS = [("The quick brown fox jumps over the lazy dog and then rests for a while. " * 8)] * 3


@dataclass
class Solver(ScriptedRuntime):
    """Solves every probe but the share `fails` of them."""

    fails: float = 0.0

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        self.seen.append(prompt)
        if random.Random(prompt).random() < self.fails:
            yield Piece("zzz qqq zzz qqq zzz qqq zzz qqq", 8, "length")
            return
        known = {item.prompt: item.answer for item in [*arithmetic_items(20, 0), *bracket_items(20, 0)]}
        key = re.search(r"pass key is (\d+)", prompt)
        text = known.get(prompt) or (key[1] if key else "the lazy dog jumps over a brown fox")
        yield Piece(f"{text}\n", 3, "stop")


def test_items_are_the_same_for_a_seed_and_others_for_another() -> None:
    assert arithmetic_items(5, 1) == arithmetic_items(5, 1) != arithmetic_items(5, 2)
    assert bracket_items(5, 1) == bracket_items(5, 1) != bracket_items(5, 2)


def test_every_answer_is_right_by_hand() -> None:
    for item in arithmetic_items(50, 3):
        question = item.prompt.split("\n\n")[-1]
        first, second = (int(word) for word in question.split() if word.isdigit())
        expected = first - second if " gives " in question else first + second
        assert item.answer == str(expected)
    for item in bracket_items(50, 3):
        opened = [char for char in item.prompt.split("\n")[-1] if char in "([{"]
        assert item.answer == "".join({"(": ")", "[": "]", "{": "}"}[char] for char in reversed(opened))


def test_a_model_that_solves_all_probes_and_one_that_solves_none() -> None:
    solver = run_probes(Solver(), TEXTS, 20, (300,))
    best = {"arithmetic": 1, "brackets": 1, "end_of_turn": 1, "repetition": 0, "oov_rate": 0, "needle_300": 1}
    assert {name: each.mean.value for name, each in solver.items()} == best
    failing = run_probes(Solver(fails=1), TEXTS, 20, (300,))
    found = {name: each.mean.value for name, each in failing.items()}
    assert found == {**dict.fromkeys(best, 0), "oov_rate": 1, "repetition": 1}
    assert {name: len(each.scores) for name, each in failing.items()}["needle_300"] == 10


def test_a_worse_model_is_flagged_on_every_probe_and_an_equal_one_on_none() -> None:
    solver, failing, same = (run_probes(Solver(fails=each), TEXTS * 7, 20, (300,)) for each in (0, 1, 0))
    assert set(significantly_worse(differences(failing, solver))) == set(solver)
    assert (
        significantly_worse(differences(solver, failing))
        == significantly_worse(differences(same, solver))
        == []
    )
    assert all(each.value == 0 and each.p == 1 for each in differences(same, solver).values())


def test_scores_of_different_items_are_not_compared() -> None:
    few, many = run_probes(Solver(), TEXTS, 5, (300,)), run_probes(Solver(), TEXTS, 20, (300,))
    assert set(differences(few, many)) <= {"repetition", "oov_rate"}  # three texts, whatever the count


@pytest.mark.parametrize("length", [200, 1500])
def test_a_needle_is_there_once_at_every_depth_and_the_text_fits(length: int) -> None:
    model = ScriptedRuntime()
    found = needle_prompts(model, TEXTS, length, 4, seed=1)
    assert len({key for _, key in found}) == 4
    for number, (prompt, key) in enumerate(found):
        assert prompt.count(key) == 2
        assert length - 40 <= len(model.encode(prompt)) <= length
        assert prompt.endswith("What is the pass key? The pass key is")
        depth = prompt.find(key) / len(prompt)
        assert length < 1000 or abs(depth - (number + 0.5) / 4) < 0.1
    assert needle_prompts(model, TEXTS, length, 4, seed=1) == found


def test_a_wrong_number_is_no_needle() -> None:
    assert needle_in_a_haystack(ScriptedRuntime(default="12345 or so"), TEXTS, 300, 5).mean.value == 0


@pytest.mark.parametrize(
    ("completion", "ends"), [("12\nQuestion: more", 1), ("12 and on and on", 0), ("", 0), ("\nlate", 0)]
)
def test_a_turn_that_ends(completion: str, ends: float) -> None:
    class Long(ScriptedRuntime):
        def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
            yield Piece(completion, 8, "length")

    assert end_of_turn(Long(), 4, 0).mean.value == ends


def test_arithmetic_goes_from_sums_of_digits_to_word_problems() -> None:
    prompts = [item.prompt.split("\n\n")[-1] for item in arithmetic_items(30, 0)]
    assert all(re.fullmatch(r"\d \+ \d =", each) for each in prompts[::3])
    assert all(re.fullmatch(r"\d+ \+ \d+ =", each) for each in prompts[1::3])
    assert any(len(each) > len("9 + 9 =") for each in prompts[1::3])
    assert all(each.startswith("Question: ") for each in prompts[2::3])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", 1),  # no words have no variety
        ("one two three", 1),
        ("one two three four five", 0),
        ("one two one two one two", 1 / 3),
        ("zun tovo dretti furr vimfe", 1),  # nor has babble
        ("one zun tovo dretti furr", 1 / 2),
    ],
)
def test_repetition(text: str, found: float) -> None:
    assert repetition(text, {"one", "two", "three", "four", "five"}) == pytest.approx(found)


def test_oov_rate() -> None:
    assert oov_rate("le chien brun, the dog", {"the", "dog"}) == pytest.approx(3 / 5)
    assert oov_rate("", {"the"}) == oov_rate("12 ###", {"the"}) == 1
