"""An expert's pieces as an OpenAI answer: whole, or as server-sent events.

Two shapes, chat and plain completion, differ only in what a choice looks like. Nothing here chooses
or runs an expert.
"""

import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from router import problems
from router.engine import Begun, Event
from router.errors import ExpertFailed, RouterError
from router.schema import Answer, Usage
from slices.errors import SliceError

DONE = "data: [DONE]\n\n"


@dataclass(frozen=True)
class Shape:
    """How one endpoint words its answers. `whole` and `part` make a choice of (text, finish)."""

    prefix: str
    whole_object: str
    part_object: str
    whole: Callable[[str, str | None], dict[str, Any]]
    part: Callable[[str, str | None], dict[str, Any]]
    opening: dict[str, Any] | None = None


def _message(text: str, finish: str | None) -> dict[str, Any]:
    said = {"role": "assistant", "content": text}
    return {"index": 0, "message": said, "logprobs": None, "finish_reason": finish}


def _delta(text: str, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}


def _text(text: str, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}


CHAT = Shape(
    prefix="chatcmpl-",
    whole_object="chat.completion",
    part_object="chat.completion.chunk",
    whole=_message,
    part=_delta,
    opening={"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None},
)
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


async def begin(events: AsyncGenerator[Event], saying: Saying) -> None:
    """Wait until the expert is at work, so that what fails before can still be told by a status."""
    first = await anext(events, None)
    if not isinstance(first, Begun):
        raise ExpertFailed(f"{saying.model} gave no answer")
    saying.prompt_tokens = first.prompt_tokens


async def whole(events: AsyncGenerator[Event], saying: Saying) -> dict[str, Any]:
    """The full answer."""
    text, finish = "", "stop"
    async with aclosing(_texts(events, saying)) as pieces:
        async for said, ended in pieces:
            text, finish = text + said, ended or finish
    choice = saying.shape.whole(text, finish)
    return saying.answer(saying.shape.whole_object, [choice], usage=saying.usage())


async def sse(events: AsyncGenerator[Event], saying: Saying, usage: bool) -> AsyncGenerator[str]:
    """The answer as server-sent events, ended by `[DONE]`; an error on the way becomes the last event."""
    kind = saying.shape.part_object
    blank = {"usage": None} if usage else {}
    if saying.shape.opening:
        yield _event(saying.answer(kind, [saying.shape.opening], **blank))
    try:
        async with aclosing(_texts(events, saying)) as pieces:
            async for said, finish in pieces:
                yield _event(saying.answer(kind, [saying.shape.part(said, finish)], **blank))
    except (RouterError, SliceError) as error:
        yield _event(problems.body(error))
        return
    if usage:
        yield _event(saying.answer(kind, [], usage=saying.usage()))
    yield DONE


async def _texts(events: AsyncGenerator[Event], saying: Saying) -> AsyncGenerator[tuple[str, str | None]]:
    """Text and finish of each piece that says something, counting tokens on the way."""
    leading = saying.strip
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Begun):
                continue
            saying.tokens += event.tokens
            text = event.text.lstrip() if leading else event.text
            leading = leading and not text
            if text or event.finish:
                yield text, event.finish


def _event(body: dict[str, Any]) -> str:
    # ASCII, because some clients split lines at U+2028.
    return f"data: {json.dumps(body)}\n\n"
