"""Many short jobs for one GGUF: a single-threaded runtime a core.

Faster than one runtime of many threads, whose threads wait for each other after every matrix, and much
faster where the machine is busy with something else. The weights are mapped once for all.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from slices.runtimes.llama_runtime import LlamaRuntime

CONTEXT = 512  # tokens
_MOST = 8  # runtimes
Item = TypeVar("Item")
Result = TypeVar("Result")


def on_every_core(
    gguf: Path, work: Callable[[LlamaRuntime, Item], Result], items: Sequence[Item]
) -> Iterator[Result]:
    """`work(runtime, item)` for every item, several at a time; the results in the order of the items."""
    workers = min(os.cpu_count() or 1, _MOST, len(items))
    with ExitStack() as stack:
        idle: SimpleQueue[LlamaRuntime] = SimpleQueue()
        for _ in range(workers):
            idle.put(stack.enter_context(closing(LlamaRuntime(gguf, threads=1, context=CONTEXT))))

        def run(item: Item) -> Result:
            runtime = idle.get()
            try:
                return work(runtime, item)
            finally:
                idle.put(runtime)

        pool = stack.enter_context(ThreadPoolExecutor(workers))
        yield from pool.map(run, items)
