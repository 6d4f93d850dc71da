"""Perturbations of queries for augmentation and robustness tests: typos, case, fragments, small talk.

Every change is drawn from a generator, so that the same seed gives the same text.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

CHARS_PER_TYPO = 20  # but at least one typo
_FRAMES = (
    ("Can you tell me: ", ""),
    ("hi! ", " thanks in advance"),
    ("I was wondering, ", ""),
    ("Please explain. ", ""),
    ("My friend asked me ", " What should I say?"),
    ("", " Answer in one short paragraph."),
    ("quick question - ", ""),
)
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOR_KEYS = {
    letter: row[max(0, column - 1) : column] + row[column + 1 : column + 2]
    for row in _KEYBOARD
    for column, letter in enumerate(row)
}


def add_typos(text: str, rng: np.random.Generator) -> str:
    """Letters swapped, deleted, doubled, or replaced by a neighbouring key."""
    chars = list(text)
    positions = [position for position, char in enumerate(chars) if char.isalpha()]
    if not positions:
        return text
    count = min(len(positions), max(1, len(text) // CHARS_PER_TYPO))
    for position in sorted(rng.choice(positions, count, replace=False).tolist(), reverse=True):
        chars[position : position + 2] = _typo(chars[position], chars[position + 1 : position + 2], rng)
    return "".join(chars)


def _typo(char: str, after: list[str], rng: np.random.Generator) -> list[str]:
    neighbors = _NEIGHBOR_KEYS.get(char.lower())
    match int(rng.integers(4)):
        case 0:
            return [*after, char]
        case 1:
            return after
        case 2 if neighbors:
            return [str(rng.choice(list(neighbors))), *after]
        case _:
            return [char, char, *after]


def change_case(text: str, rng: np.random.Generator) -> str:
    """Lower case, upper case, or lower case without punctuation."""
    match int(rng.integers(3)):
        case 0:
            return text.lower()
        case 1:
            return text.upper()
        case _:
            return " ".join("".join(c if c.isalnum() or c in "'-" else " " for c in text.lower()).split())


def take_fragment(text: str, rng: np.random.Generator) -> str:
    """Three to eight consecutive words; a shorter text stays whole."""
    words, count = text.split(), int(rng.integers(3, 9))
    start = int(rng.integers(max(1, len(words) - count + 1)))
    return " ".join(words[start : start + count]) or text


def add_small_talk(text: str, rng: np.random.Generator) -> str:
    """The question, its own words kept, in a frame of small talk."""
    before, after = _FRAMES[int(rng.integers(len(_FRAMES)))]
    inner = text[0].lower() + text[1:] if before and text[1:2].islower() else text
    return f"{before}{inner.rstrip()}{after}"


PERTURBATIONS: Mapping[str, Callable[[str, np.random.Generator], str]] = {
    "typos": add_typos,
    "case": change_case,
    "fragment": take_fragment,
    "small_talk": add_small_talk,
}
TRAINED = ("typos", "case", "fragment")  # small talk is only measured; training on it costs (docs/log.md)


def perturb_all(texts: Sequence[str], max_count: int = 20_000, seed: int = 0) -> list[tuple[str, int]]:
    """A perturbed copy of every text, or of a random `max_count` of them, with the text's index."""
    rng = np.random.default_rng(seed)
    perturbations = [PERTURBATIONS[name] for name in TRAINED]
    chosen = rng.permutation(len(texts))[:max_count].tolist()
    return [
        (perturbations[int(rng.integers(len(perturbations)))](texts[index], rng), index) for index in chosen
    ]
