"""Queries as people really type them: with slips of the keyboard, in other case, cut short, in small talk.

Every change is drawn from a generator, so that the same seed gives the same text. Tells whether a router's
decisions survive.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

SLIP_EVERY = 20  # characters to a slip, and one at least
_FRAMES = (
    ("Can you tell me: ", ""),
    ("hi! ", " thanks in advance"),
    ("I was wondering, ", ""),
    ("Please explain. ", ""),
    ("My friend asked me ", " What should I say?"),
    ("", " Answer in one short paragraph."),
    ("quick question - ", ""),
)
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_BESIDE = {
    letter: row[max(0, place - 1) : place] + row[place + 1 : place + 2]
    for row in _ROWS
    for place, letter in enumerate(row)
}


def slips(text: str, draw: np.random.Generator) -> str:
    """Letters swapped, left out, doubled, or hit beside the right key."""
    letters = list(text)
    places = [place for place, letter in enumerate(letters) if letter.isalpha()]
    if not places:
        return text
    count = min(len(places), max(1, len(text) // SLIP_EVERY))
    for place in sorted(draw.choice(places, count, replace=False).tolist(), reverse=True):
        letters[place : place + 2] = _slip(letters[place], letters[place + 1 : place + 2], draw)
    return "".join(letters)


def _slip(letter: str, after: list[str], draw: np.random.Generator) -> list[str]:
    beside = _BESIDE.get(letter.lower())
    match int(draw.integers(4)):
        case 0:
            return [*after, letter]
        case 1:
            return after
        case 2 if beside:
            return [str(draw.choice(list(beside))), *after]
        case _:
            return [letter, letter, *after]


def other_case(text: str, draw: np.random.Generator) -> str:
    """All small, all capital, or small without punctuation."""
    match int(draw.integers(3)):
        case 0:
            return text.lower()
        case 1:
            return text.upper()
        case _:
            return " ".join("".join(c if c.isalnum() or c in "'-" else " " for c in text.lower()).split())


def fragment(text: str, draw: np.random.Generator) -> str:
    """Three to eight words in a row; what is no longer than that stays whole."""
    words, count = text.split(), int(draw.integers(3, 9))
    start = int(draw.integers(max(1, len(words) - count + 1)))
    return " ".join(words[start : start + count]) or text


def reworded(text: str, draw: np.random.Generator) -> str:
    """The question in a frame of small talk, its own words kept."""
    before, after = _FRAMES[int(draw.integers(len(_FRAMES)))]
    inner = text[0].lower() + text[1:] if before and text[1:2].islower() else text
    return f"{before}{inner.rstrip()}{after}"


NOISE: Mapping[str, Callable[[str, np.random.Generator], str]] = {
    "typo": slips,
    "case": other_case,
    "fragment": fragment,
    "wording": reworded,
}
TAUGHT = ("typo", "case", "fragment")  # small talk is measured only; learning it costs (docs/log.md)


def noisy(texts: Sequence[str], most: int = 20_000, seed: int = 0) -> list[tuple[str, int]]:
    """A disturbed copy of every text, or of `most` of them, with the text's number."""
    draw = np.random.default_rng(seed)
    kinds = [NOISE[kind] for kind in TAUGHT]
    chosen = draw.permutation(len(texts))[:most].tolist()
    return [(kinds[int(draw.integers(len(kinds)))](texts[at], draw), at) for at in chosen]
