"""Probabilities of tokens as the OpenAI API tells them: one form for chats, an older one for completions."""

from collections.abc import Sequence
from typing import Any

from slices.runtime import TokenLogprob

LEAST = -9999.0  # told for a token that cannot come: JSON has no infinity


def of_chat(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """`choices[].logprobs` of a chat."""
    return {"content": [_entry(each) for each in tokens], "refusal": None}


def of_text(tokens: Sequence[TokenLogprob], offset: int = 0) -> dict[str, Any]:
    """`choices[].logprobs` of a completion; `offset` is where the first token begins in its text."""
    spelled = [_text(each.token) for each in tokens]
    offsets = [offset + sum(map(len, spelled[:index])) for index in range(len(spelled))]
    return {
        "tokens": spelled,
        "token_logprobs": [_finite(each.logprob) for each in tokens],
        "top_logprobs": [
            {_text(token): _finite(value) for token, value in reversed(each.top)} for each in tokens
        ],
        "text_offset": offsets,
    }


def _entry(each: TokenLogprob) -> dict[str, Any]:
    top = [_named(token, value) for token, value in each.top]
    return {**_named(each.token, each.logprob), "top_logprobs": top}


def _named(token: bytes, value: float) -> dict[str, Any]:
    return {"token": _text(token), "logprob": _finite(value), "bytes": list(token)}


def _text(token: bytes) -> str:
    return token.decode("utf-8", "replace")


def _finite(value: float) -> float:
    return max(value, LEAST)
