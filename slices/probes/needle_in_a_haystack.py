"""Needle in a haystack: a number in a long context, asked for at its end. Shows the cost of less attention.

Passkey retrieval (Mohtashami & Jaggi 2023): held-out text of a given number of tokens, one sentence with a
number of five digits in it, and the beginning of that sentence as the question. Scored by exact match.
"""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from slices.probes.synthetic_tasks import complete, items_sha256
from slices.progress import Progress, no_progress
from slices.runtime import Runtime, Sampling
from slices.tasks.item_scores import ItemScores

LENGTHS = (1024, 2048, 4096, 8192)  # context lengths in tokens
_SAMPLING = Sampling(max_tokens=8, temperature=0)
_NEEDLE = "The pass key is {key}. Remember it. {key} is the pass key."
_QUESTION = "What is the pass key? The pass key is"


class Needle(NamedTuple):
    """A prompt and the number that completes it."""

    prompt: str
    key: str


def needle_in_a_haystack(
    runtime: Runtime,
    texts: Sequence[str],
    length: int,
    count: int,
    seed: int = 0,
    progress: Progress = no_progress,
) -> ItemScores:
    """Exact match of the number in a context of `length` tokens, with the needle at evenly spaced depths."""
    return score_needles(runtime, needle_prompts(runtime, texts, length, count, seed), length, progress)


def score_needles(
    runtime: Runtime, items: Sequence[Needle], length: int, progress: Progress = no_progress
) -> ItemScores:
    """Exact match of each number after its prompt; `length` names the task."""
    scores = np.zeros(len(items))
    for index, (prompt, key) in enumerate(items):
        match = re.search(r"\d+", complete(runtime, prompt, _SAMPLING))
        scores[index] = match is not None and match[0] == key
        progress(f"needle at {length}", index + 1, len(items))
    return ItemScores(f"needle_{length}", scores, items_sha256(items))


def needle_prompts(
    runtime: Runtime, texts: Sequence[str], length: int, count: int, seed: int
) -> list[Needle]:
    """Prompts of at most `length` tokens of `runtime`, each with its number."""
    rng = random.Random(f"{seed} {length}")
    prompts = []
    for index in range(count):
        key = str(rng.randint(10_000, 99_999))
        overhead = len(runtime.encode(_insert_needle("", key, 0)))
        haystack = _haystack(runtime, texts, length - overhead, rng)
        prompts.append(Needle(_insert_needle(haystack, key, (index + 0.5) / count), key))
    return prompts


def _insert_needle(haystack: str, key: str, depth: float) -> str:
    """The haystack with the needle at a depth of 0 to 1, at a word boundary, and the question at its end."""
    position = max(haystack.rfind(" ", 0, int(len(haystack) * depth) + 1), 0)
    before, after = haystack[:position], haystack[position:].lstrip()
    return f"{before}\n\n{_NEEDLE.format(key=key)}\n\n{after}\n\n{_QUESTION}".strip()


def _haystack(runtime: Runtime, texts: Sequence[str], tokens: int, rng: random.Random) -> str:
    """The documents in random order, repeated as needed, truncated to `tokens` tokens."""
    documents = [text.strip() for text in texts if text.strip()]
    rng.shuffle(documents)
    haystack, max_chars = "", max(tokens, 0) * 8  # more characters than that many tokens hold
    while len(haystack) < max_chars:
        haystack += "\n\n".join([*documents, ""])
    low, high = 0, max_chars
    while low < high:
        middle = (low + high + 1) // 2
        fits = len(runtime.encode(haystack[:middle])) <= tokens
        low, high = (middle, high) if fits else (low, middle - 1)
    return haystack[:low]
