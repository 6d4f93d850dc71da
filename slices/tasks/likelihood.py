"""How likely a model thinks a continuation: the one question that multiple choice and the harness ask.

Context and continuation are encoded together and split by the tokens of the context, with the context's
trailing spaces moved over, as lm-evaluation-harness does, so that figures compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slices.errors import PromptTooLong
from slices.runtime import Runtime


@dataclass(frozen=True)
class Likelihood:
    """Natural log of a continuation's probability, and whether greedy decoding would write it."""

    logprob: float
    greedy: bool


def likelihoods(
    runtime: Runtime, context: str, continuations: Sequence[str], most: int | None = None
) -> list[Likelihood]:
    """How likely each continuation of `context` is. Those of one token share a run of the model.

    Args:
        most: tokens that the model reads at once; longer contexts lose their beginning. None: no limit.

    Raises:
        PromptTooLong: a continuation alone is longer than that.
    """
    read = [split(runtime, context, each) for each in continuations]
    known: dict[tuple[int, ...], NDArray[np.float32]] = {}
    found = []
    for before, after in read:
        if len(after) == 1:
            if before not in known:
                known[before] = _last(runtime, shortened(before, after, most))
            row = known[before]
            found.append(Likelihood(float(row[after[0]]), int(row.argmax()) == after[0]))
        else:
            found.append(_measured(runtime, shortened(before, after, most), len(after)))
    return found


def split(runtime: Runtime, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of both; together they are the ids of the whole text."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    whole, before = runtime.encode(context + continuation), runtime.encode(context)
    return tuple(whole[: len(before)]), tuple(whole[len(before) :])


def shortened(before: Sequence[int], after: Sequence[int], most: int | None) -> tuple[int, ...]:
    """Both, without as much of the beginning as exceeds `most` tokens; the first one, a bos, stays."""
    tokens = (*before, *after)
    if most is None or len(tokens) <= most:
        return tokens
    if len(after) >= most:
        raise PromptTooLong(f"the continuation has {len(after)} tokens, but the model reads {most} at once")
    return (tokens[0], *tokens[len(tokens) - most + 1 :])


def _last(runtime: Runtime, tokens: Sequence[int]) -> NDArray[np.float32]:
    """The distribution over the last of `tokens`, log probabilities of shape (vocabulary,)."""
    last = None
    for chunk in runtime.distributions(tokens):
        last = chunk[-1]
    assert last is not None
    return np.asarray(last)


def _measured(runtime: Runtime, tokens: Sequence[int], count: int) -> Likelihood:
    """The likelihood of the last `count` tokens."""
    scored, at = [], 1
    for chunk in runtime.distributions(tokens):
        skip = max(0, len(tokens) - count - at)
        for row, token in zip(chunk[skip:], tokens[at + skip : at + len(chunk)], strict=True):
            scored.append((float(row[token]), int(row.argmax()) == token))
        at += len(chunk)
    return Likelihood(sum(logprob for logprob, _ in scored), all(greedy for _, greedy in scored))
