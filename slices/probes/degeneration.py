"""Text degeneration (Holtzman et al. 2020) of greedy continuations: repetition and out-of-vocabulary rate.

Repetition is the share of 4-grams that are not new (rep-4, Welleck et al. 2020): generated before, or four
words outside the vocabulary of the held-out text, so that babble does not count as diversity; human text has
close to none. The out-of-vocabulary rate is the share of words outside that vocabulary. Names are always
outside it, so the rate means little alone and much beside the baseline's.
"""

import re
from collections.abc import Sequence

import numpy as np

from slices.probes.synthetic_tasks import complete, items_sha256
from slices.progress import Progress, no_progress
from slices.runtime import Runtime, Sampling
from slices.tasks.item_scores import ItemScores

REPETITION, OOV_RATE = "repetition", "oov_rate"
_SAMPLING = Sampling(max_tokens=64, temperature=0)
_PROMPT_CHARS = 400
_NGRAM = 4  # words
_WORD = re.compile(r"[^\W\d_]{2,}")


def degeneration(
    runtime: Runtime, texts: Sequence[str], count: int, progress: Progress = no_progress
) -> dict[str, ItemScores]:
    """`REPETITION` and `OOV_RATE` of continuations of `texts`, by continuation; lower is better."""
    vocabulary = {word for text in texts for word in words(text)}
    prompts = [text[:_PROMPT_CHARS] for text in texts if len(text) >= _PROMPT_CHARS][:count]
    prompts = prompts or [text[:_PROMPT_CHARS] for text in texts][:count]
    repetitions, oov_rates = np.zeros(len(prompts)), np.zeros(len(prompts))
    for index, prompt in enumerate(prompts):
        completion = complete(runtime, prompt, _SAMPLING)
        repetitions[index] = repetition(completion, vocabulary)
        oov_rates[index] = oov_rate(completion, vocabulary)
        progress("continuations", index + 1, len(prompts))
    data = items_sha256([prompts, sorted(vocabulary)])
    return {
        REPETITION: ItemScores(REPETITION, repetitions, data),
        OOV_RATE: ItemScores(OOV_RATE, oov_rates, data),
    }


def repetition(text: str, vocabulary: set[str]) -> float:
    """The share of 4-grams that are repeated or wholly outside `vocabulary`; 1 where there is no 4-gram."""
    tokens = words(text)
    ngrams = [tuple(tokens[start : start + _NGRAM]) for start in range(len(tokens) - _NGRAM + 1)]
    new = {ngram for ngram in ngrams if not vocabulary.isdisjoint(ngram)}
    return 1 - len(new) / len(ngrams) if ngrams else 1.0


def oov_rate(text: str, vocabulary: set[str]) -> float:
    """The share of words outside `vocabulary`; 1 where there are no words."""
    tokens = words(text)
    return sum(token not in vocabulary for token in tokens) / len(tokens) if tokens else 1.0


def words(text: str) -> list[str]:
    """Words of two letters or more, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]
