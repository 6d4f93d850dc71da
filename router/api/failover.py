"""Failover: an expert that is dead, slow or overloaded is retried, then replaced by the generalist.

It ends with the first piece: after that an answer is one expert's, or it ends in an error.
An answer that is not streamed, of which nothing has been sent, is generated anew.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from router.api.circuit_breaker import CircuitBreaker
from router.api.prometheus import Metrics
from router.engine.worker import Event, GenerationStarted
from router.errors import BadRequest, DeadlineExceeded, ExpertFailed, ExpertTimeout, Overloaded
from router.routing.decide import Decision
from slices.errors import PromptTooLong, Unsupported

Streams: TypeAlias = list[AsyncGenerator[Event]]  # one a choice
Start: TypeAlias = Callable[[str], Streams]  # called with an expert's name
Result = TypeVar("Result")
Respond: TypeAlias = Callable[["StartedAnswer"], Awaitable[Result]]
_PREDICATES = {
    ExpertFailed: "did not answer",
    Overloaded: "has too many requests",
    ExpertTimeout: "is too slow",
}


@dataclass(frozen=True)
class StartedAnswer:
    """An answer whose first piece is there: the decision, and the events of each choice. To be closed.

    Choices beyond the slots of an expert are queued behind the others; the answer does not wait for them.
    """

    decision: Decision
    prompt_tokens: int
    choices: Streams
    closing: AsyncExitStack


@dataclass(frozen=True)
class Failover:
    """Retry and fallback of experts that give no first piece.

    `timeout` is how many seconds each expert has to start, and again for a first piece; None for no limit.
    """

    breaker: CircuitBreaker
    metrics: Metrics
    timeout: float | None = None

    async def answer(
        self, decision: Decision, start: Start, fallback: str | None, respond: Respond[Result]
    ) -> Result:
        """The result of `respond` on the chosen expert's answer, or else on that of `fallback`.

        An expert that fails within `respond` counts as one that gave no first piece; so what goes to the
        caller in pieces must not be awaited there.

        Raises:
            ExpertFailed, Overloaded, ExpertTimeout: none gave an answer; the one chosen is named.
            SliceError: the request is not for this model, which no other would change.
        """
        try:
            return await self._with_retry(decision, start, respond)
        except (ExpertFailed, Overloaded, ExpertTimeout) as error:
            if fallback in (None, decision.expert):
                raise
            cause = error
        self.metrics.count_failover(decision.expert, type(cause).__name__)
        reason = f"{decision.expert} {_PREDICATES[type(cause)]}, so the generalist answers"
        try:
            return await self._attempt(
                replace(decision, expert=fallback, fallback=True, reason=reason), start, respond
            )
        except (ExpertFailed, Overloaded, ExpertTimeout):
            raise cause from None
        except (BadRequest, PromptTooLong, Unsupported):  # not for the generalist; for the one chosen it was
            raise cause from None

    async def _with_retry(self, decision: Decision, start: Start, respond: Respond[Result]) -> Result:
        try:
            return await self._attempt(decision, start, respond)
        except ExpertFailed:
            self.metrics.count_failover(decision.expert, "retry")
            return await self._attempt(decision, start, respond)

    async def _attempt(self, decision: Decision, start: Start, respond: Respond[Result]) -> Result:
        if wait := self.breaker.retry_after(decision.expert):
            raise Overloaded(f"{decision.expert} failed again and again; try again in {wait:.0f} s", wait)
        try:
            answer = await self._started(decision, start(decision.expert))
        except (ExpertFailed, ExpertTimeout):
            self.breaker.record_failure(decision.expert)
            raise
        self.breaker.record_first_piece(decision.expert)
        return await respond(answer)

    async def _started(self, decision: Decision, streams: Streams) -> StartedAnswer:
        async with AsyncExitStack() as closing:
            for each in streams:
                await closing.enter_async_context(aclosing(each))
            started = asyncio.Event()
            firsts = [asyncio.create_task(_first_events(each, started)) for each in streams]
            any_started = asyncio.create_task(started.wait())
            closing.push_async_callback(_cancel, [*firsts, any_started])
            if not await self._first_done([*firsts, any_started]):
                raise Overloaded(f"{decision.expert} has too many requests; try again later")
            if not (done := await self._first_done(firsts)):
                raise ExpertTimeout(f"{decision.expert} gave no token for {self.timeout:g} s")
            starts = [task.result()[0] for task in done]
            outcome = _Outcome(self.breaker, decision.expert)
            choices = [outcome.record(first, rest) for first, rest in zip(firsts, streams, strict=True)]
            return StartedAnswer(
                decision=decision,
                prompt_tokens=starts[0].prompt_tokens,
                choices=choices,
                closing=closing.pop_all(),
            )

    async def _first_done(self, tasks: Sequence[asyncio.Task[Result]]) -> set[asyncio.Task[Result]]:
        """The tasks that are done when the first one is; none on a timeout."""
        done, _ = await asyncio.wait(tasks, timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED)
        return done


@dataclass
class _Outcome:
    """Reports the end of a started answer to the breaker. Choices that fail together are one failure."""

    breaker: CircuitBreaker
    expert: str
    failed: bool = False

    async def record(
        self, first: "asyncio.Task[tuple[GenerationStarted, Event]]", rest: AsyncGenerator[Event]
    ) -> AsyncGenerator[Event]:
        """All events of a choice: those that were awaited already, then the rest."""
        try:
            for event in await first:
                yield event
            async for event in rest:  # closed with the whole answer
                yield event
        except ExpertFailed:
            if not self.failed:
                self.breaker.record_failure(self.expert)
            self.failed = True
            raise
        except GeneratorExit:  # nobody wants the rest
            self._succeeded()
            raise
        self._succeeded()

    def _succeeded(self) -> None:
        if not self.failed:
            self.breaker.record_success(self.expert)


async def until(events: AsyncGenerator[Event], deadline: float | None) -> AsyncGenerator[Event]:
    """The same events, up to a time of the event loop's clock.

    Raises:
        DeadlineExceeded: the deadline came first.
    """
    async with aclosing(events):
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    event = await anext(events, None)
            except TimeoutError:
                raise DeadlineExceeded("the answer took longer than requests may") from None
            if event is None:
                return
            yield event


async def _first_events(
    events: AsyncGenerator[Event], started: asyncio.Event
) -> tuple[GenerationStarted, Event]:
    """`GenerationStarted` and the first piece; `started` is set between the two."""
    start = await anext(events, None)
    started.set()
    piece = await anext(events, None)
    if not isinstance(start, GenerationStarted) or piece is None:
        raise ExpertFailed("the expert gave no answer")
    return start, piece


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel what still waits for a first piece, since a stream that is being read cannot be closed."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
