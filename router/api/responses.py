"""OpenAI responses from an expert's events: one JSON body, or server-sent events.

The two formats, chat and plain completion, differ only in what a choice looks like. Nothing here chooses
or runs an expert.
"""

import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from router.api import tools
from router.api.logprobs import chat_logprobs, completion_logprobs
from router.api.merge_streams import merge
from router.api.middleware import error_responses
from router.api.schema import CompletionResponse, Usage
from router.engine.worker import Event, GenerationStarted
from router.errors import RouterError
from slices.errors import SliceError
from slices.runtime import Piece, TokenLogprob

DONE = "data: [DONE]\n\n"
Events: TypeAlias = AsyncGenerator[Event]


@dataclass(frozen=True)
class ChoiceFormat:
    """The JSON of one endpoint's choices. `choice` and `chunk` make it from a choice's index and a piece.

    Attributes:
        first_chunk: what each choice of a stream begins with.
        one_chunk: each choice of a stream is one chunk.
    """

    id_prefix: str
    object: str
    chunk_object: str
    choice: Callable[[int, Piece], dict[str, Any]]
    chunk: Callable[[int, Piece], dict[str, Any]]
    first_chunk: dict[str, Any] | None = None
    one_chunk: bool = False


def _chat_choice(index: int, piece: Piece) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": piece.text, "refusal": None, "annotations": []}
    logprobs = chat_logprobs(piece.logprobs) if piece.logprobs else None
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": piece.finish_reason}


def _chat_chunk(index: int, piece: Piece) -> dict[str, Any]:
    logprobs = {"logprobs": chat_logprobs(piece.logprobs)} if piece.logprobs else {}
    delta = {"content": piece.text} if piece.text else {}
    return {"index": index, "delta": delta, **logprobs, "finish_reason": piece.finish_reason}


def _tool_call_choice(index: int, piece: Piece) -> dict[str, Any]:
    if (calls := tools.parse_calls(piece)) is None:
        return _chat_choice(index, piece)
    choice = _chat_choice(index, replace(piece, text="", finish_reason=tools.FINISH_REASON))
    choice["message"] |= {"content": None, "tool_calls": calls}
    return choice


def _tool_call_chunk(index: int, piece: Piece) -> dict[str, Any]:
    if (calls := tools.parse_calls(piece)) is None:
        return _chat_chunk(index, piece)
    delta = {"tool_calls": [{"index": number, **call} for number, call in enumerate(calls)]}
    return {"index": index, "delta": delta, "finish_reason": tools.FINISH_REASON}


def _completion_choice(index: int, piece: Piece) -> dict[str, Any]:
    logprobs = completion_logprobs(piece.logprobs) if piece.logprobs else None
    return {"index": index, "text": piece.text, "logprobs": logprobs, "finish_reason": piece.finish_reason}


CHAT = ChoiceFormat(
    id_prefix="chatcmpl-",
    object="chat.completion",
    chunk_object="chat.completion.chunk",
    choice=_chat_choice,
    chunk=_chat_chunk,
    first_chunk={"delta": {"role": "assistant", "content": ""}, "finish_reason": None},
)
TOOL_CALL = replace(CHAT, choice=_tool_call_choice, chunk=_tool_call_chunk, one_chunk=True)
COMPLETION = ChoiceFormat(
    id_prefix="cmpl-",
    object="text_completion",
    chunk_object="text_completion",
    choice=_completion_choice,
    chunk=_completion_choice,
)


@dataclass
class ResponseState:
    """One response while it is generated: its format, id and expert, and the token counts so far."""

    format: ChoiceFormat
    model: str
    strip: bool = False  # leading space of each choice
    prompt_tokens: int = 0
    completion_tokens: int = 0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """The JSON of the response or of a chunk, of which `kind` is the `object`."""
        response = CompletionResponse(
            id=self.format.id_prefix + self.id,
            object=kind,
            created=self.created,
            model=self.model,
            choices=choices,
            **more,
        )
        return response.model_dump(exclude_unset=True)

    def usage(self) -> Usage:
        """The token counts so far."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            total_tokens=self.prompt_tokens + self.completion_tokens,
        )


async def json_body(choices: Sequence[Events], state: ResponseState) -> dict[str, Any]:
    """The response as one JSON body, when all choices have ended."""
    bodies = [state.format.choice(index, piece) async for index, piece in _whole_choices(choices, state)]
    return state.body(state.format.object, bodies, usage=state.usage())


async def sse(
    choices: Sequence[Events], state: ResponseState, include_usage: bool, closing: AsyncExitStack
) -> AsyncGenerator[str]:
    """The response as server-sent events, ended by `[DONE]`; an error on the way becomes the last event.

    `closing` is closed at the end, or when the client has disconnected.
    """
    kind, usage = state.format.chunk_object, {"usage": None} if include_usage else {}
    pieces = _whole_choices(choices, state) if state.format.one_chunk else _merged_choices(choices, state)
    async with closing:
        for first in _first_chunks(state.format, len(choices)):
            yield _event(state.body(kind, [first], **usage))
        try:
            async with aclosing(pieces):
                async for index, piece in pieces:
                    yield _event(state.body(kind, [state.format.chunk(index, piece)], **usage))
        except (RouterError, SliceError) as error:
            yield _event(error_responses.body(error))
            return
        if include_usage:
            yield _event(state.body(kind, [], usage=state.usage()))
        yield DONE


def _first_chunks(form: ChoiceFormat, count: int) -> Iterator[dict[str, Any]]:
    if form.first_chunk:
        yield from ({"index": index, **form.first_chunk} for index in range(count))


def _merged_choices(choices: Sequence[Events], state: ResponseState) -> AsyncGenerator[tuple[int, Piece]]:
    """The pieces of all choices in the order in which they are generated, each with its choice's index."""
    return merge([_text_pieces(each, state) for each in choices])


async def _whole_choices(
    choices: Sequence[Events], state: ResponseState
) -> AsyncGenerator[tuple[int, Piece]]:
    """Each choice as one piece, in order, when all have ended."""
    whole = [Piece("", 0, "stop") for _ in choices]
    async with aclosing(_merged_choices(choices, state)) as pieces:
        async for index, piece in pieces:
            before = whole[index]
            whole[index] = Piece(
                text=before.text + piece.text,
                tokens=0,
                finish_reason=piece.finish_reason or before.finish_reason,
                logprobs=before.logprobs + piece.logprobs,
            )
    for pair in enumerate(whole):
        yield pair


async def _text_pieces(events: Events, state: ResponseState) -> AsyncGenerator[Piece]:
    """The pieces that have text or end the choice, with tokens counted; logprobs go with the next of them."""
    strip = state.strip
    logprobs: tuple[TokenLogprob, ...] = ()
    async with aclosing(events):
        async for event in events:
            if isinstance(event, GenerationStarted):
                continue
            state.completion_tokens += event.tokens
            text = event.text.lstrip() if strip else event.text
            strip, logprobs = strip and not text, (*logprobs, *event.logprobs)
            if text or event.finish_reason:
                yield replace(event, text=text, logprobs=logprobs)
                logprobs = ()


def _event(body: dict[str, Any]) -> str:
    # ASCII, because some clients split lines at U+2028.
    return f"data: {json.dumps(body)}\n\n"
