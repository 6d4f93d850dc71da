"""Synthetic few-shot tasks, generated from a seed, for any base model: arithmetic, brackets, end of turn.

Decoded greedily after four worked examples. Whether an answer ends is a task of its own: a degenerate model
does not end its turn.
"""

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from slices.progress import Progress, no_progress
from slices.runtime import Runtime, Sampling
from slices.tasks.item_scores import ItemScores

SHOTS = 4
_ANSWER_SAMPLING = Sampling(max_tokens=8, temperature=0)
_TURN_SAMPLING = Sampling(max_tokens=24, temperature=0, stop=("\n",))
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_NAMES = ("Ana", "Ben", "Chen", "Dora", "Emil", "Fay")
_THINGS = ("apples", "books", "coins", "pens", "stones", "cards")


@dataclass(frozen=True)
class Item:
    """A prompt and its right answer."""

    prompt: str
    answer: str


def arithmetic(runtime: Runtime, count: int, seed: int, progress: Progress = no_progress) -> ItemScores:
    """Accuracy on sums and one-step word problems: the first number must be right."""

    def is_right(item: Item) -> bool:
        match = re.search(r"-?\d+", complete(runtime, item.prompt, _ANSWER_SAMPLING))
        return match is not None and match[0] == item.answer

    return _score("arithmetic", arithmetic_items(count, seed), is_right, progress)


def brackets(runtime: Runtime, count: int, seed: int, progress: Progress = no_progress) -> ItemScores:
    """Accuracy of closing the open brackets of nested calls (Dyck language), in order and nothing else."""

    def is_right(item: Item) -> bool:
        line = complete(runtime, item.prompt, _ANSWER_SAMPLING).split("\n", 1)[0]
        return "".join(line.split()) == item.answer

    return _score("brackets", bracket_items(count, seed), is_right, progress)


def end_of_turn(runtime: Runtime, count: int, seed: int, progress: Progress = no_progress) -> ItemScores:
    """The share of answers that end, with a newline or an end-of-sequence token, as the examples do."""

    def ends(item: Item) -> bool:
        pieces = list(runtime.generate(item.prompt, _TURN_SAMPLING))
        line, newline, _ = "".join(piece.text for piece in pieces).partition("\n")
        return bool(line.strip()) and (bool(newline) or pieces[-1].finish_reason == "stop")

    return _score("end_of_turn", arithmetic_items(count, seed), ends, progress)


def arithmetic_items(count: int, seed: int) -> list[Item]:
    """By turns a sum of digits, a sum below 100 and a word problem, each after four examples of its kind.

    A model of 270 million parameters can do the first and not the last: a probe on which the baseline
    already scores zero would show no loss.
    """
    rng = random.Random(seed)
    kinds = (partial(_sum, 9), partial(_sum, 49), _word_problem)
    shots = [
        "".join(f"{item.prompt} {item.answer}\n\n" for item in (kind(rng) for _ in range(SHOTS)))
        for kind in kinds
    ]
    items = ((shots[index % len(kinds)], kinds[index % len(kinds)](rng)) for index in range(count))
    return [Item(examples + item.prompt, item.answer) for examples, item in items]


def bracket_items(count: int, seed: int) -> list[Item]:
    """Nested calls with open brackets, after four that are closed; the answer is the closing brackets."""
    rng = random.Random(seed)
    shots = "".join(f"{item.prompt}{item.answer}\n" for item in (_nested_call(rng) for _ in range(SHOTS)))
    return [Item(shots + item.prompt, item.answer) for item in (_nested_call(rng) for _ in range(count))]


def complete(runtime: Runtime, prompt: str, sampling: Sampling) -> str:
    """The completion of `prompt`."""
    return "".join(piece.text for piece in runtime.generate(prompt, sampling))


def items_sha256(items: Sequence[object]) -> str:
    """sha256 of a probe's items, in hexadecimal."""
    return hashlib.sha256(repr(items).encode()).hexdigest()


def _score(
    name: str, items: Sequence[Item], is_right: Callable[[Item], bool], progress: Progress
) -> ItemScores:
    scores = np.zeros(len(items))
    for index, item in enumerate(items):
        scores[index] = is_right(item)
        progress(name, index + 1, len(items))
    return ItemScores(name, scores, items_sha256(items))


def _sum(largest: int, rng: random.Random) -> Item:
    first, second = rng.randint(1, largest), rng.randint(1, largest)
    return Item(f"{first} + {second} =", str(first + second))


def _word_problem(rng: random.Random) -> Item:
    name, things = rng.choice(_NAMES), rng.choice(_THINGS)
    count, change = rng.randint(2, 20), rng.randint(1, 9)
    if rng.random() < 0.5:
        story, answer = f"{name} has {count} {things} and gets {change} more.", count + change
    else:
        story, answer = f"{name} has {count + change} {things} and gives {change} away.", count
    return Item(f"Question: {story} How many {things} does {name} have now?\nAnswer:", str(answer))


def _nested_call(rng: random.Random) -> Item:
    opened = [rng.choice(list(_CLOSING)) for _ in range(rng.randint(2, 4))]
    text = "".join(f"{rng.choice('abcdefgh')}{bracket}" for bracket in opened)
    return Item(f"{text}{rng.randint(0, 9)}", "".join(_CLOSING[bracket] for bracket in reversed(opened)))
