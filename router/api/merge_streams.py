"""Several answers to one request (`n`): their pieces as they come, each with the number of its choice."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeAlias, TypeVar

Item = TypeVar("Item")
Told: TypeAlias = tuple[int, Item] | BaseException | None


async def merged(streams: Sequence[AsyncGenerator[Item]]) -> AsyncGenerator[tuple[int, Item]]:
    """What comes of any stream, with its number; the first error ends all. Closing it closes them."""
    if len(streams) == 1:  # no task between the model and the caller
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield 0, item
        return
    queue: asyncio.Queue[Told[Item]] = asyncio.Queue()
    tasks = [asyncio.create_task(_feed(number, each, queue)) for number, each in enumerate(streams)]
    try:
        running = len(tasks)
        while running:
            told = await queue.get()
            if isinstance(told, BaseException):
                raise told
            if told is None:
                running -= 1
            else:
                yield told
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _feed(number: int, stream: AsyncGenerator[Item], queue: "asyncio.Queue[Told[Item]]") -> None:
    try:
        async with aclosing(stream):
            async for item in stream:
                queue.put_nowait((number, item))
        queue.put_nowait(None)
    except Exception as error:  # noqa: BLE001 - raised again where the streams are read
        queue.put_nowait(error)
