"""Sampling parameters of a request, and the refusal of parameters that are not supported."""

from dataclasses import replace

from router.api.json_grammar import any_object_grammar, schema_grammar
from router.api.schema import ChatRequest, CompletionRequest
from router.api.tools import required_tools, tools_grammar
from router.errors import BadRequest
from router.experts.chat_template import Prompt
from router.settings import Limits
from slices.runtime import Sampling

_SEEDS = 2**32 - 1  # llama.cpp's seeds are 32 bits wide, the last one meaning "any"
_UNSUPPORTED = {
    "functions": "functions are not supported; their successor `tools` is",
    "audio": "audio is not supported: only text can be answered",
    "echo": "echo is not supported",
    "suffix": "suffix is not supported: the experts only continue a prompt",
    "best_of": "best_of is not supported; use `n` for several choices",
}


def reject_unsupported(request: ChatRequest | CompletionRequest) -> None:
    """Refuse parameters that would silently be ignored.

    Raises:
        BadRequest: there is one; the field is named.
    """
    for field, reason in _UNSUPPORTED.items():
        if getattr(request, field, None):
            raise BadRequest(reason, field)


def sampling_params(
    request: ChatRequest | CompletionRequest, prompt: Prompt, limits: Limits
) -> list[Sampling]:
    """The sampling parameters of each choice; those after the first have the next seeds.

    Raises:
        BadRequest: its schema cannot be turned into a grammar.
    """
    first = _first_choice(request, prompt, limits)
    count = request.n or 1
    if first.seed is None:
        return [first] * count
    return [replace(first, seed=(first.seed + index) % _SEEDS) for index in range(count)]


def _first_choice(request: ChatRequest | CompletionRequest, prompt: Prompt, limits: Limits) -> Sampling:
    default = Sampling()
    max_tokens = request.max_tokens or limits.default_max_tokens
    if isinstance(request, ChatRequest):
        max_tokens = request.max_completion_tokens or max_tokens
    return Sampling(
        max_tokens=min(max_tokens, limits.max_tokens),
        temperature=default.temperature if request.temperature is None else request.temperature,
        top_p=default.top_p if request.top_p is None else request.top_p,
        top_k=default.top_k if request.top_k is None else request.top_k,
        seed=None if request.seed is None else request.seed % _SEEDS,
        stop=(*request.stop_strings, *prompt.stop),
        logprobs=request.logprobs_count,
        grammar=_grammar(request),
    )


def _grammar(request: ChatRequest | CompletionRequest) -> str | None:
    if isinstance(request, ChatRequest) and (tools := required_tools(request)):
        return tools_grammar(tools)
    response_format = request.response_format if isinstance(request, ChatRequest) else None
    if response_format is None or response_format.type == "text":
        return None
    if response_format.json_schema is None or response_format.json_schema.schema_ is None:
        return any_object_grammar()
    return schema_grammar(response_format.json_schema.schema_)
