"""An expert's pieces as an OpenAI answer: whole, or as server-sent events.

Two shapes, chat and plain completion, differ only in what a choice looks like. Nothing here chooses
or runs an expert.
"""

import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from router.api import logprobs, tools
from router.api.merge_streams import merged
from router.api.middleware import error_responses
from router.api.schema import Answer, Usage
from router.engine.worker import Begun, Event
from router.errors import RouterError
from slices.errors import SliceError
from slices.runtime import Piece, TokenLogprob

DONE = "data: [DONE]\n\n"
Events: TypeAlias = AsyncGenerator[Event]


@dataclass(frozen=True)
class Shape:
    """How one endpoint words its answers. `whole` and `part` make a choice of its number and a piece."""

    prefix: str
    whole_object: str
    part_object: str
    whole: Callable[[int, Piece], dict[str, Any]]
    part: Callable[[int, Piece], dict[str, Any]]
    opening: dict[str, Any] | None = None
    at_once: bool = False  # each choice is one chunk of a stream


def _message(index: int, piece: Piece) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": piece.text, "refusal": None, "annotations": []}
    told = logprobs.of_chat(piece.logprobs) if piece.logprobs else None
    return {"index": index, "message": said, "logprobs": told, "finish_reason": piece.finish_reason}


def _delta(index: int, piece: Piece) -> dict[str, Any]:
    told = {"logprobs": logprobs.of_chat(piece.logprobs)} if piece.logprobs else {}
    said = {"content": piece.text} if piece.text else {}
    return {"index": index, "delta": said, **told, "finish_reason": piece.finish_reason}


def _call(index: int, piece: Piece) -> dict[str, Any]:
    if (calls := tools.calls(piece)) is None:
        return _message(index, piece)
    choice = _message(index, replace(piece, text="", finish_reason=tools.CALLED))
    choice["message"] |= {"content": None, "tool_calls": calls}
    return choice


def _calling(index: int, piece: Piece) -> dict[str, Any]:
    if (calls := tools.calls(piece)) is None:
        return _delta(index, piece)
    said = {"tool_calls": [{"index": at, **call} for at, call in enumerate(calls)]}
    return {"index": index, "delta": said, "finish_reason": tools.CALLED}


def _text(index: int, piece: Piece) -> dict[str, Any]:
    told = logprobs.of_text(piece.logprobs) if piece.logprobs else None
    return {"index": index, "text": piece.text, "logprobs": told, "finish_reason": piece.finish_reason}


CHAT = Shape(
    prefix="chatcmpl-",
    whole_object="chat.completion",
    part_object="chat.completion.chunk",
    whole=_message,
    part=_delta,
    opening={"delta": {"role": "assistant", "content": ""}, "finish_reason": None},
)
CALL = replace(CHAT, whole=_call, part=_calling, at_once=True)
TEXT = Shape("cmpl-", "text_completion", "text_completion", _text, _text)


@dataclass
class Saying:
    """One answer while it is given: who gives it, in which shape, and the tokens so far."""

    shape: Shape
    model: str
    strip: bool = False
    prompt_tokens: int = 0
    tokens: int = 0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def answer(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """The answer's or the chunk's JSON."""
        made = Answer(
            id=self.shape.prefix + self.id,
            object=kind,
            created=self.created,
            model=self.model,
            choices=choices,
            **more,
        )
        return made.model_dump(exclude_unset=True)

    def usage(self) -> Usage:
        """The token counts so far."""
        total = self.prompt_tokens + self.tokens
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.tokens, total_tokens=total)


async def whole(choices: Sequence[Events], saying: Saying) -> dict[str, Any]:
    """The full answer, of as many choices."""
    made = [saying.shape.whole(index, piece) async for index, piece in _gathered(choices, saying)]
    return saying.answer(saying.shape.whole_object, made, usage=saying.usage())


async def sse(
    choices: Sequence[Events], saying: Saying, usage: bool, closing: AsyncExitStack
) -> AsyncGenerator[str]:
    """The answer as server-sent events, ended by `[DONE]`; an error on the way becomes the last event.

    `closing` is closed when all is said, or nobody listens any more.
    """
    async with closing:
        async for event in _events(choices, saying, usage):
            yield event


async def _events(choices: Sequence[Events], saying: Saying, usage: bool) -> AsyncGenerator[str]:
    kind = saying.shape.part_object
    blank = {"usage": None} if usage else {}
    if saying.shape.opening:
        for index in range(len(choices)):
            yield _event(saying.answer(kind, [{"index": index, **saying.shape.opening}], **blank))
    try:
        come = _gathered if saying.shape.at_once else _coming
        async with aclosing(come(choices, saying)) as pieces:
            async for index, piece in pieces:
                yield _event(saying.answer(kind, [saying.shape.part(index, piece)], **blank))
    except (RouterError, SliceError) as error:
        yield _event(error_responses.body(error))
        return
    if usage:
        yield _event(saying.answer(kind, [], usage=saying.usage()))
    yield DONE


def _coming(choices: Sequence[Events], saying: Saying) -> AsyncGenerator[tuple[int, Piece]]:
    """The pieces of all choices as they come."""
    return merged([_shown(each, saying) for each in choices])


async def _gathered(choices: Sequence[Events], saying: Saying) -> AsyncGenerator[tuple[int, Piece]]:
    """Each choice as one piece, in order, when all have ended."""
    said = [Piece("", 0, "stop") for _ in choices]
    async with aclosing(_coming(choices, saying)) as pieces:
        async for index, piece in pieces:
            before = said[index]
            text, told = before.text + piece.text, before.logprobs + piece.logprobs
            said[index] = Piece(text, 0, piece.finish_reason or before.finish_reason, told)
    for pair in enumerate(said):
        yield pair


async def _shown(events: Events, saying: Saying) -> AsyncGenerator[Piece]:
    """The pieces that say something, counting tokens on the way; probabilities go with the next of them."""
    leading = saying.strip
    told: tuple[TokenLogprob, ...] = ()
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Begun):
                continue
            saying.tokens += event.tokens
            text = event.text.lstrip() if leading else event.text
            leading, told = leading and not text, (*told, *event.logprobs)
            if text or event.finish_reason:
                yield replace(event, text=text, logprobs=told)
                told = ()


def _event(body: dict[str, Any]) -> str:
    # ASCII, because some clients split lines at U+2028.
    return f"data: {json.dumps(body)}\n\n"
