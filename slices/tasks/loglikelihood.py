"""Log-likelihood of continuations given a context: what multiple choice and lm-evaluation-harness ask for.

Context and continuation are encoded together and split by the tokens of the context, with the context's
trailing spaces moved over, as lm-evaluation-harness does, so that results compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slices.errors import PromptTooLong
from slices.runtime import Runtime


@dataclass(frozen=True)
class LogLikelihood:
    """Natural-log probability of a continuation, and whether greedy decoding would generate it."""

    logprob: float
    is_greedy: bool


def loglikelihoods(
    runtime: Runtime, context: str, continuations: Sequence[str], max_length: int | None = None
) -> list[LogLikelihood]:
    """Log-likelihood of each continuation of `context`. Continuations of one token share a forward pass.

    Args:
        max_length: tokens that the model takes at once; longer contexts are truncated on the left. None: no
            limit.

    Raises:
        PromptTooLong: a continuation alone has more tokens than `max_length`.
    """
    pairs = [encode_pair(runtime, context, continuation) for continuation in continuations]
    next_token: dict[tuple[int, ...], NDArray[np.float32]] = {}
    results = []
    for context_ids, continuation_ids in pairs:
        tokens = truncate_left(context_ids, continuation_ids, max_length)
        if len(continuation_ids) == 1:
            if context_ids not in next_token:
                next_token[context_ids] = _next_token_logprobs(runtime, tokens)
            logprobs, target = next_token[context_ids], continuation_ids[0]
            results.append(LogLikelihood(float(logprobs[target]), int(logprobs.argmax()) == target))
        else:
            results.append(_score_last(runtime, tokens, len(continuation_ids)))
    return results


def encode_pair(runtime: Runtime, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of context and continuation; concatenated, they are the ids of the whole text."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    token_ids, context_ids = runtime.encode(context + continuation), runtime.encode(context)
    return tuple(token_ids[: len(context_ids)]), tuple(token_ids[len(context_ids) :])


def truncate_left(
    context_ids: Sequence[int], continuation_ids: Sequence[int], max_length: int | None
) -> tuple[int, ...]:
    """Both concatenated, truncated on the left to `max_length` tokens; the first token, a bos, is kept.

    Raises:
        PromptTooLong: the continuation leaves no token of context.
    """
    tokens = (*context_ids, *continuation_ids)
    if max_length is None or len(tokens) <= max_length:
        return tokens
    if len(continuation_ids) >= max_length:
        raise PromptTooLong(
            f"the continuation has {len(continuation_ids)} tokens, but the model takes {max_length} at once"
        )
    return (tokens[0], *tokens[len(tokens) - max_length + 1 :])


def _next_token_logprobs(runtime: Runtime, tokens: Sequence[int]) -> NDArray[np.float32]:
    """The distribution over the last of `tokens`: log probabilities of shape (vocabulary,)."""
    last = None
    for chunk in runtime.distributions(tokens):
        last = chunk[-1]
    assert last is not None
    return np.asarray(last)


def _score_last(runtime: Runtime, tokens: Sequence[int], count: int) -> LogLikelihood:
    """The log-likelihood of the last `count` tokens."""
    scored, position = [], 1
    for chunk in runtime.distributions(tokens):
        skip = max(0, len(tokens) - count - position)
        targets = tokens[position + skip : position + len(chunk)]
        for logprobs, target in zip(chunk[skip:], targets, strict=True):
            scored.append((float(logprobs[target]), int(logprobs.argmax()) == target))
        position += len(chunk)
    return LogLikelihood(sum(logprob for logprob, _ in scored), all(greedy for _, greedy in scored))
