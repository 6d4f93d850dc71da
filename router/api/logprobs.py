"""Log-probabilities of tokens in the OpenAI API: one form for chats, an older one for completions."""

from collections.abc import Sequence
from typing import Any

from slices.runtime import TokenLogprob

MIN_LOGPROB = -9999.0  # in place of minus infinity, which JSON cannot hold


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """`choices[].logprobs` of a chat completion."""
    return {"content": [_chat_token(each) for each in tokens], "refusal": None}


def completion_logprobs(tokens: Sequence[TokenLogprob], offset: int = 0) -> dict[str, Any]:
    """`choices[].logprobs` of a completion; `offset` is where the first token begins in its text."""
    texts = [_text(each.token) for each in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [_finite(each.logprob) for each in tokens],
        "top_logprobs": [
            {_text(token): _finite(value) for token, value in reversed(each.top)} for each in tokens
        ],
        "text_offset": [offset + sum(map(len, texts[:index])) for index in range(len(texts))],
    }


def _chat_token(each: TokenLogprob) -> dict[str, Any]:
    top = [_chat_logprob(token, value) for token, value in each.top]
    return {**_chat_logprob(each.token, each.logprob), "top_logprobs": top}


def _chat_logprob(token: bytes, value: float) -> dict[str, Any]:
    return {"token": _text(token), "logprob": _finite(value), "bytes": list(token)}


def _text(token: bytes) -> str:
    return token.decode("utf-8", "replace")


def _finite(value: float) -> float:
    return max(value, MIN_LOGPROB)
