"""Greedy continuations of held-out text: do they repeat themselves, do they leave the text's language?

Repetition is the share of runs of four words that are not new: written before, or four words that the
domain's held-out text does not know, so that babble is no variety; people's text has next to none. Drift is
the share of words that the held-out text does not know. Names are new everywhere, so it says little alone,
and much beside the reference's.
"""

import re
from collections.abc import Sequence

import numpy as np

from slices.probes.writing import Progress, digest, written
from slices.runtime import Runtime, Sampling
from slices.tasks.outcome import Outcome

_PROSE = Sampling(max_tokens=64, temperature=0)
_PROMPT = 400  # characters
_RUN = 4  # words
_WORD = re.compile(r"[^\W\d_]{2,}")


def continue_texts(
    runtime: Runtime, texts: Sequence[str], count: int, progress: Progress | None = None
) -> dict[str, Outcome]:
    """The outcomes "repetition" and "drift" over continuations of `texts`; lower is better."""
    known = {word for text in texts for word in words(text)}
    prompts = [text[:_PROMPT] for text in texts if len(text) >= _PROMPT][:count]
    prompts = prompts or [text[:_PROMPT] for text in texts][:count]
    repeated, drifted = np.zeros(len(prompts)), np.zeros(len(prompts))
    for number, prompt in enumerate(prompts):
        told = written(runtime, prompt, _PROSE)
        repeated[number], drifted[number] = repetition(told, known), drift(told, known)
        if progress:
            progress("continuations", number + 1, len(prompts))
    data = digest([prompts, sorted(known)])
    return {
        "repetition": Outcome("repetition", repeated, data),
        "drift": Outcome("drift", drifted, data),
    }


def repetition(text: str, known: set[str]) -> float:
    """The share of runs of four words that came before or are of no known word; 1 where there are none."""
    found = words(text)
    runs = [tuple(found[at : at + _RUN]) for at in range(len(found) - _RUN + 1)]
    new = {run for run in runs if not known.isdisjoint(run)}
    return 1 - len(new) / len(runs) if runs else 1.0


def drift(text: str, known: set[str]) -> float:
    """The share of a text's words that are not known; 1 where it has no words at all."""
    found = words(text)
    return sum(word not in known for word in found) / len(found) if found else 1.0


def words(text: str) -> list[str]:
    """Runs of two letters or more, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]
