"""A pool of single-threaded runtimes of one GGUF, one a core, for many short jobs.

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

N_CTX = 512  # tokens
_MAX_WORKERS = 8  # runtimes
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_all_cores(
    gguf: Path, work: Callable[[LlamaRuntime, Item], Result], items: Sequence[Item]
) -> Iterator[Result]:
    """`work(runtime, item)` for every item, in parallel; the results in the order of the items."""
    workers = min(os.cpu_count() or 1, _MAX_WORKERS, len(items))
    with ExitStack() as stack:
        idle: SimpleQueue[LlamaRuntime] = SimpleQueue()
        for _ in range(workers):
            idle.put(stack.enter_context(closing(LlamaRuntime(gguf, threads=1, n_ctx=N_CTX))))

        def run(item: Item) -> Result:
            runtime = idle.get()
            try:
                return work(runtime, item)
            finally:
                idle.put(runtime)

        pool = stack.enter_context(ThreadPoolExecutor(workers))
        yield from pool.map(run, items)
