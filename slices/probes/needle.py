"""A number hidden in a long text, asked for at its end: what losing full attention costs.

Passkey retrieval (Mohtashami & Jaggi 2023): held-out text of a stated number of tokens, one sentence with a
number of five digits somewhere in it, and the beginning of that sentence again. Right is the number, exactly.
"""

import random
import re
from collections.abc import Sequence

import numpy as np

from slices.probes.writing import Progress, digest, written
from slices.runtime import Runtime, Sampling
from slices.tasks.outcome import Outcome

LENGTHS = (512, 2048, 8192)  # tokens
_ANSWER = Sampling(max_tokens=8, temperature=0)
_SENTENCE = "The pass key is {key}. Remember it. {key} is the pass key."
_QUESTION = "What is the pass key? The pass key is"


def find_needles(
    runtime: Runtime,
    texts: Sequence[str],
    length: int,
    count: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> Outcome:
    """The share of numbers found among `length` tokens, the sentence at evenly spaced depths."""
    items = needles(runtime, texts, length, count, seed)
    scores = np.zeros(len(items))
    for number, (prompt, key) in enumerate(items):
        found = re.search(r"\d+", written(runtime, prompt, _ANSWER))
        scores[number] = found is not None and found[0] == key
        if progress:
            progress(f"needle at {length}", number + 1, len(items))
    return Outcome(f"needle_{length}", scores, digest(items))


def needles(
    runtime: Runtime, texts: Sequence[str], length: int, count: int, seed: int
) -> list[tuple[str, str]]:
    """Prompts of at most `length` tokens, as `runtime` counts them, and the numbers in them."""
    draw = random.Random(f"{seed} {length}")
    found = []
    for number in range(count):
        key = str(draw.randint(10_000, 99_999))
        hay = _hay(runtime, texts, length - len(runtime.encode(_around("", key, 0))), draw)
        found.append((_around(hay, key, (number + 0.5) / count), key))
    return found


def _around(hay: str, key: str, depth: float) -> str:
    """The text with the sentence at a depth of 0 to 1, after a whole paragraph or word, and the question."""
    at = hay.rfind(" ", 0, int(len(hay) * depth) + 1)
    before, after = hay[: max(at, 0)], hay[max(at, 0) :].lstrip()
    return f"{before}\n\n{_SENTENCE.format(key=key)}\n\n{after}\n\n{_QUESTION}".strip()


def _hay(runtime: Runtime, texts: Sequence[str], tokens: int, draw: random.Random) -> str:
    """Documents in a random order, again and again if need be, cut to fit."""
    order = [text.strip() for text in texts if text.strip()]
    draw.shuffle(order)
    hay, wanted = "", max(tokens, 0) * 8  # characters, more than that many tokens take
    while len(hay) < wanted:
        hay += "\n\n".join([*order, ""])
    low, high = 0, wanted
    while low < high:
        middle = (low + high + 1) // 2
        fits = len(runtime.encode(hay[:middle])) <= tokens
        low, high = (middle, high) if fits else (low, middle - 1)
    return hay[:low]
