"""What a model writes, scored: likelihoods hide what losing layers does to writing. These stand beside them.

Three small tasks, made here from a seed, greedy decoding, any base model: arithmetic word problems after
four worked ones (exact match), closing open brackets in the right order, and how often a continuation of
held-out text repeats itself. Shares come with standard errors over the items.
"""

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from slices.measure.evaluate import Estimate
from slices.runtime import Runtime, Sampling

ITEMS = 100
SHOTS = 4
_GREEDY = Sampling(max_tokens=8, temperature=0)
_PROSE = Sampling(max_tokens=64, temperature=0)
_NGRAM = 4  # words
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_NAMES = ("Ana", "Ben", "Chen", "Dora", "Emil", "Fay")
_THINGS = ("apples", "books", "coins", "pens", "stones", "cards")
_T = TypeVar("_T")
Progress = Callable[[str, int, int], None]  # the task, items done, items in all


@dataclass(frozen=True)
class Item:
    """A prompt and the answer that is right."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Writing:
    """What was written. `arithmetic` and `brackets` are shares that were right; `repetition` is the share of
    runs of four words that had been written before, over the continuations of held-out text.
    """

    arithmetic: Estimate
    brackets: Estimate
    repetition: Estimate
    items: int


def measure_writing(
    runtime: Runtime,
    texts: Sequence[str],
    items: int = ITEMS,
    seed: int = 0,
    progress: Progress = lambda task, done, total: None,
) -> Writing:
    """Have `runtime` write on all three tasks; `texts` are held-out documents to continue."""
    sums, closings = arithmetic(items, seed), brackets(items, seed)
    right = [_solved(runtime, item) for item in _told(sums, "arithmetic", progress)]
    closed = [_closed(runtime, item) for item in _told(closings, "brackets", progress)]
    prompts = [text[:400] for text in texts if len(text) >= 400][:items] or [text[:400] for text in texts]
    repeated = [
        repetition(_written(runtime, each, _PROSE)) for each in _told(prompts, "repetition", progress)
    ]
    return Writing(share(right), share(closed), share(repeated), items)


def arithmetic(count: int, seed: int) -> list[Item]:
    """Word problems of one step, each after four worked ones; numbers up to 20."""
    draw = random.Random(seed)
    shots = "".join(f"{item.prompt} {item.answer}\n\n" for item in (_problem(draw) for _ in range(SHOTS)))
    return [Item(shots + item.prompt, item.answer) for item in (_problem(draw) for _ in range(count))]


def brackets(count: int, seed: int) -> list[Item]:
    """Nested calls that end open, after four that are closed; the answer is the brackets that close them."""
    draw = random.Random(seed)
    shots = "".join(f"{item.prompt}{item.answer}\n" for item in (_nested(draw) for _ in range(SHOTS)))
    return [Item(shots + item.prompt, item.answer) for item in (_nested(draw) for _ in range(count))]


def repetition(text: str) -> float:
    """The share of a text's runs of four words that occurred in it before; 0 where there are none."""
    words = text.split()
    runs = [tuple(words[at : at + _NGRAM]) for at in range(len(words) - _NGRAM + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def share(values: Sequence[float]) -> Estimate:
    """The mean and its standard error."""
    count = len(values)
    mean = sum(values) / count
    spread = sum((value - mean) ** 2 for value in values) / max(count - 1, 1)
    return Estimate(mean, math.sqrt(spread / count))


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


def _solved(runtime: Runtime, item: Item) -> bool:
    found = re.search(r"-?\d+", _written(runtime, item.prompt, _GREEDY))
    return found is not None and found[0] == item.answer


def _closed(runtime: Runtime, item: Item) -> bool:
    line = _written(runtime, item.prompt, _GREEDY).split("\n", 1)[0]
    return "".join(line.split()) == item.answer


def _written(runtime: Runtime, prompt: str, sampling: Sampling) -> str:
    return "".join(piece.text for piece in runtime.generate(prompt, sampling))


def _told(items: Sequence[_T], task: str, progress: Progress) -> Iterator[_T]:
    for done, item in enumerate(items, start=1):
        yield item
        progress(task, done, len(items))
