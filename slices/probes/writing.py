"""Short tasks to write, made here from a seed, for any base model: sums, word problems and open brackets.

Greedy, after four worked examples. Whether an answer ends is a probe of its own: a model that has lost its
way does not end its turn.
"""

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from slices.runtime import Runtime, Sampling
from slices.tasks.outcome import Outcome

SHOTS = 4
_ANSWER = Sampling(max_tokens=8, temperature=0)
_TURN = Sampling(max_tokens=24, temperature=0, stop=("\n",))
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_NAMES = ("Ana", "Ben", "Chen", "Dora", "Emil", "Fay")
_THINGS = ("apples", "books", "coins", "pens", "stones", "cards")
Progress = Callable[[str, int, int], None]  # the probe, items done, items in all


@dataclass(frozen=True)
class Item:
    """A prompt and the answer that is right."""

    prompt: str
    answer: str


def solve_problems(runtime: Runtime, count: int, seed: int, progress: Progress | None = None) -> Outcome:
    """The share of sums and one-step word problems whose first number is right."""

    def right(item: Item) -> bool:
        found = re.search(r"-?\d+", written(runtime, item.prompt, _ANSWER))
        return found is not None and found[0] == item.answer

    return _outcome("arithmetic", arithmetic(count, seed), right, progress)


def close_brackets(runtime: Runtime, count: int, seed: int, progress: Progress | None = None) -> Outcome:
    """The share of nested calls whose open brackets are closed in the right order, and nothing else."""

    def right(item: Item) -> bool:
        line = written(runtime, item.prompt, _ANSWER).split("\n", 1)[0]
        return "".join(line.split()) == item.answer

    return _outcome("brackets", brackets(count, seed), right, progress)


def end_turns(runtime: Runtime, count: int, seed: int, progress: Progress | None = None) -> Outcome:
    """The share of answers that end, with the line or the model's own end, as the worked ones do."""

    def ended(item: Item) -> bool:
        pieces = list(runtime.generate(item.prompt, _TURN))
        line, newline, _ = "".join(piece.text for piece in pieces).partition("\n")
        return bool(line.strip()) and (bool(newline) or pieces[-1].finish == "stop")

    return _outcome("ending", arithmetic(count, seed), ended, progress)


def arithmetic(count: int, seed: int) -> list[Item]:
    """By turns a sum of digits, a sum below 100 and a word problem, each after four worked ones of its kind.

    The first is within reach of 270 million parameters, the last is not: a probe on whose floor the reference
    already lies would see no harm.
    """
    draw = random.Random(seed)
    kinds = (partial(_sum, 9), partial(_sum, 49), _problem)
    shots = [
        "".join(f"{item.prompt} {item.answer}\n\n" for item in (kind(draw) for _ in range(SHOTS)))
        for kind in kinds
    ]
    items = ((shots[at % len(kinds)], kinds[at % len(kinds)](draw)) for at in range(count))
    return [Item(worked + item.prompt, item.answer) for worked, item in items]


def brackets(count: int, seed: int) -> list[Item]:
    """Nested calls that end open, after four that are closed; the answer is the brackets that close them."""
    draw = random.Random(seed)
    shots = "".join(f"{item.prompt}{item.answer}\n" for item in (_nested(draw) for _ in range(SHOTS)))
    return [Item(shots + item.prompt, item.answer) for item in (_nested(draw) for _ in range(count))]


def written(runtime: Runtime, prompt: str, sampling: Sampling) -> str:
    """All that is written after `prompt`."""
    return "".join(piece.text for piece in runtime.generate(prompt, sampling))


def digest(items: Sequence[object]) -> str:
    """sha256 of a probe's items."""
    return hashlib.sha256(repr(items).encode()).hexdigest()


def _outcome(
    name: str, items: Sequence[Item], right: Callable[[Item], bool], progress: Progress | None
) -> Outcome:
    scores = np.zeros(len(items))
    for number, item in enumerate(items):
        scores[number] = right(item)
        if progress:
            progress(name, number + 1, len(items))
    return Outcome(name, scores, digest(items))


def _sum(most: int, draw: random.Random) -> Item:
    first, second = draw.randint(1, most), draw.randint(1, most)
    return Item(f"{first} + {second} =", str(first + second))


def _problem(draw: random.Random) -> Item:
    name, things = draw.choice(_NAMES), draw.choice(_THINGS)
    has, more = draw.randint(2, 20), draw.randint(1, 9)
    if draw.random() < 0.5:
        told, answer = f"{name} has {has} {things} and gets {more} more.", has + more
    else:
        told, answer = f"{name} has {has + more} {things} and gives {more} away.", has
    return Item(f"Question: {told} How many {things} does {name} have now?\nAnswer:", str(answer))


def _nested(draw: random.Random) -> Item:
    opened = [draw.choice(list(_PAIRS)) for _ in range(draw.randint(2, 4))]
    text = "".join(f"{draw.choice('abcdefgh')}{bracket}" for bracket in opened)
    return Item(f"{text}{draw.randint(0, 9)}", "".join(_PAIRS[bracket] for bracket in reversed(opened)))
