"""An expert that is dead, slow or overloaded: asked again, then the generalist, until a first piece is there.

After that nobody else is asked where pieces have gone to the caller: an answer is one expert's, or it ends in
an error. A whole answer, of which nothing has gone out, is begun anew.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from router.api.circuit_breaker import Breaker
from router.api.prometheus import Metrics
from router.engine.worker import Begun, Event
from router.errors import BadRequest, DeadlinePassed, ExpertFailed, Overloaded, TooSlow
from router.routing.decide import Decision
from slices.errors import PromptTooLong, Unsupported

Streams = list[AsyncGenerator[Event]]
Start = Callable[[str], Streams]  # an expert's name -> what it says to each choice
Made = TypeVar("Made")
Finish: TypeAlias = Callable[["Opened"], Awaitable[Made]]
_WORDS = {ExpertFailed: "did not answer", Overloaded: "has too many requests", TooSlow: "is too slow"}


@dataclass(frozen=True)
class Opened:
    """An answer of which a first piece is there: who gives it, and all that it says. To be closed.

    Choices beyond the places of an expert wait in line behind the others; the answer does not wait for them.
    """

    decision: Decision
    prompt_tokens: int
    choices: Streams
    closing: AsyncExitStack


@dataclass(frozen=True)
class Failover:
    """What is done where an expert gives no first piece.

    `patience` is how many seconds each expert has to begin, and again for a first piece; None for any time.
    """

    breaker: Breaker
    metrics: Metrics
    patience: float | None = None

    async def answer(
        self, decision: Decision, start: Start, elsewhere: str | None, finish: Finish[Made]
    ) -> Made:
        """What `finish` makes of the chosen expert's answer, or else of that of `elsewhere`.

        An expert that fails within `finish` is as one that gave no first piece; so what goes to the caller in
        pieces must not be waited for there.

        Raises:
            ExpertFailed, Overloaded, TooSlow: none gave an answer; the one chosen is named.
            SliceError: what was asked is not for this model, which no other would change.
        """
        try:
            return await self._twice(decision, start, finish)
        except (ExpertFailed, Overloaded, TooSlow) as error:
            if elsewhere in (None, decision.expert):
                raise
            cause = error
        self.metrics.failed_over(decision.expert, type(cause).__name__)
        why = f"{decision.expert} {_WORDS[type(cause)]}, so the generalist answers"
        try:
            instead = replace(decision, expert=elsewhere, fallback=True, reason=why)
            return await self._once(instead, start, finish)
        except (ExpertFailed, Overloaded, TooSlow):
            raise cause from None
        except (BadRequest, PromptTooLong, Unsupported):  # not for the generalist; for the one chosen it was
            raise cause from None

    async def _twice(self, decision: Decision, start: Start, finish: Finish[Made]) -> Made:
        try:
            return await self._once(decision, start, finish)
        except ExpertFailed:
            self.metrics.failed_over(decision.expert, "retry")
            return await self._once(decision, start, finish)

    async def _once(self, decision: Decision, start: Start, finish: Finish[Made]) -> Made:
        if rest := self.breaker.rests(decision.expert):
            raise Overloaded(f"{decision.expert} failed again and again; try again in {rest:.0f} s", rest)
        try:
            opened = await self._opened(decision, start(decision.expert))
        except (ExpertFailed, TooSlow):
            self.breaker.failed(decision.expert)
            raise
        self.breaker.began(decision.expert)
        watch = _Watch(self.breaker, decision.expert)
        return await finish(replace(opened, choices=[watch.over(each) for each in opened.choices]))

    async def _opened(self, decision: Decision, streams: Streams) -> Opened:
        async with AsyncExitStack() as closing:
            for each in streams:
                await closing.enter_async_context(aclosing(each))
            at_work = asyncio.Event()
            firsts = [asyncio.create_task(_first(each, at_work)) for each in streams]
            seated = asyncio.create_task(at_work.wait())
            closing.push_async_callback(_drop, [*firsts, seated])
            if not await self._soon([*firsts, seated]):
                raise Overloaded(f"{decision.expert} has too many requests; try again later")
            if not (done := await self._soon(firsts)):
                raise TooSlow(f"{decision.expert} said nothing for {self.patience:g} s")
            begun = [task.result()[0] for task in done]
            choices = [_replayed(first, rest) for first, rest in zip(firsts, streams, strict=True)]
            return Opened(decision, begun[0].prompt_tokens, choices, closing.pop_all())

    async def _soon(self, tasks: Sequence[asyncio.Task[Made]]) -> set[asyncio.Task[Made]]:
        """Those that are done when the first one is; none where patience ends before."""
        done, _ = await asyncio.wait(tasks, timeout=self.patience, return_when=asyncio.FIRST_COMPLETED)
        return done


@dataclass
class _Watch:
    """Tells the breaker how an answer ends that has begun. Choices that fail together are one failure."""

    breaker: Breaker
    expert: str
    failed: bool = False

    async def over(self, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        """The same events."""
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        except ExpertFailed:
            if not self.failed:
                self.breaker.failed(self.expert)
            self.failed = True
            raise
        except GeneratorExit:  # nobody wants the rest
            self._ended()
            raise
        self._ended()

    def _ended(self) -> None:
        if not self.failed:
            self.breaker.answered(self.expert)


async def until(events: AsyncGenerator[Event], deadline: float | None) -> AsyncGenerator[Event]:
    """The same events, up to a time of the event loop's clock.

    Raises:
        DeadlinePassed: it came first.
    """
    async with aclosing(events):
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    event = await anext(events, None)
            except TimeoutError:
                raise DeadlinePassed("the answer took longer than requests may") from None
            if event is None:
                return
            yield event


async def _first(events: AsyncGenerator[Event], at_work: asyncio.Event) -> tuple[Begun, Event]:
    """`Begun`, and the first piece; `at_work` is set between the two."""
    begun = await anext(events, None)
    at_work.set()
    piece = await anext(events, None)
    if not isinstance(begun, Begun) or piece is None:
        raise ExpertFailed("the expert gave no answer")
    return begun, piece


async def _drop(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """End what still waits for a first piece, since a stream that is being read cannot be closed."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _replayed(
    first: asyncio.Task[tuple[Begun, Event]], rest: AsyncGenerator[Event]
) -> AsyncGenerator[Event]:
    for event in await first:
        yield event
    async for event in rest:
        yield event
