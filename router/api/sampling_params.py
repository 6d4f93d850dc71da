"""What a request asks of the model: its fields as a `Sampling`, and what nobody here can grant, refused."""

from dataclasses import replace

from router.api.json_grammar import any_object, of_schema
from router.api.schema import ChatRequest, CompletionRequest
from router.api.tools import grammar, to_call
from router.errors import BadRequest
from router.experts.chat_template import Prompt
from router.settings import Limits
from slices.runtime import Sampling

_SEEDS = 2**32 - 1  # llama.cpp's seeds are 32 bits wide, the last one meaning "any"
_UNSUPPORTED = {
    "functions": "functions are not supported; their successor `tools` is",
    "audio": "audio is not supported: only text can be answered",
    "echo": "echo is not supported",
    "suffix": "suffix is not supported: the experts only write on",
    "best_of": "best_of is not supported; ask for `n` choices",
}


def refuse(ask: ChatRequest | CompletionRequest) -> None:
    """Say so where a request asks for what would silently be left undone.

    Raises:
        BadRequest: it does; the field is named.
    """
    for field, why in _UNSUPPORTED.items():
        if getattr(ask, field, None):
            raise BadRequest(why, field)


def samplings(ask: ChatRequest | CompletionRequest, prompt: Prompt, limits: Limits) -> list[Sampling]:
    """How each choice's tokens are to be chosen; those after the first draw with the next seeds.

    Raises:
        BadRequest: its schema cannot be followed.
    """
    first = _sampling(ask, prompt, limits)
    if first.seed is None:
        return [first] * (ask.n or 1)
    return [replace(first, seed=(first.seed + index) % _SEEDS) for index in range(ask.n or 1)]


def _sampling(ask: ChatRequest | CompletionRequest, prompt: Prompt, limits: Limits) -> Sampling:
    plain = Sampling()
    wanted = ask.max_tokens or limits.default_max_tokens
    if isinstance(ask, ChatRequest):
        wanted = ask.max_completion_tokens or wanted
    return Sampling(
        max_tokens=min(wanted, limits.max_tokens),
        temperature=plain.temperature if ask.temperature is None else ask.temperature,
        top_p=plain.top_p if ask.top_p is None else ask.top_p,
        top_k=plain.top_k if ask.top_k is None else ask.top_k,
        seed=None if ask.seed is None else ask.seed % _SEEDS,
        stop=(*ask.stops, *prompt.stop),
        logprobs=ask.wants_logprobs,
        grammar=_grammar(ask),
    )


def _grammar(ask: ChatRequest | CompletionRequest) -> str | None:
    if isinstance(ask, ChatRequest) and (tools := to_call(ask)):
        return grammar(tools)
    form = ask.response_format if isinstance(ask, ChatRequest) else None
    if form is None or form.type == "text":
        return None
    if form.json_schema is None or form.json_schema.schema_ is None:
        return any_object()
    return of_schema(form.json_schema.schema_)
