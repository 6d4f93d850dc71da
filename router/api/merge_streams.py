"""Merging of the streams of several choices (`n`) into one, each item with the index of its choice."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeAlias, TypeVar

Item = TypeVar("Item")
Entry: TypeAlias = tuple[int, Item] | BaseException | None  # an item with its index, an error, or an end


async def merge(streams: Sequence[AsyncGenerator[Item]]) -> AsyncGenerator[tuple[int, Item]]:
    """The items of all streams as they come, with their stream's index; the first error ends all.

    Closing it closes the streams.
    """
    if len(streams) == 1:  # no task between the model and the caller
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield 0, item
        return
    queue: asyncio.Queue[Entry[Item]] = asyncio.Queue()
    tasks = [asyncio.create_task(_feed(index, each, queue)) for index, each in enumerate(streams)]
    try:
        running = len(tasks)
        while running:
            entry = await queue.get()
            if isinstance(entry, BaseException):
                raise entry
            if entry is None:
                running -= 1
            else:
                yield entry
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _feed(index: int, stream: AsyncGenerator[Item], queue: "asyncio.Queue[Entry[Item]]") -> None:
    try:
        async with aclosing(stream):
            async for item in stream:
                queue.put_nowait((index, item))
        queue.put_nowait(None)
    except Exception as error:  # noqa: BLE001 - raised again where the streams are read
        queue.put_nowait(error)
