"""What runs in an expert's replica, and how the ingress reaches it.

The only part that speaks to a Ray Serve handle. Starting and stopping is `router.serving.lifecycle`'s.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from importlib import import_module
from pathlib import Path
from typing import Any

from router.engine.coalesce import spacing
from router.engine.worker import Event, Worker
from router.errors import BadSettings, ExpertFailed, Overloaded, RouterError
from router.experts.catalogue import Expert
from slices.errors import SliceError
from slices.runtime import Batcher, Capacity, Sampling

OpenBatcher = Callable[[Path, Path | None, Capacity], Batcher]


def taken_on(capacity: Capacity) -> int:
    """Requests at a replica at most: one waits for each slot, so that none stays empty when several end at
    once. The others wait outside, where they can go to another replica and outlive this one.
    """
    return 2 * capacity.max_num_seqs


class ExpertReplica:
    """What runs in a replica of an expert: its model, writing several answers at a time."""

    def __init__(self, expert: Expert, runtime: str, capacity: Capacity, nice: int = 0) -> None:
        opener = import_runtime(runtime)
        self._worker = Worker(
            lambda: opener(expert.folder, expert.file, capacity), taken_on(capacity), nice, spacing
        )
        self._worker.start()

    async def answer(self, prompt: str, sampling: Sampling) -> AsyncGenerator[Event]:
        """See `router.engine.worker.Engine.stream`."""
        async with aclosing(self._worker.stream(prompt, sampling)) as events:
            async for event in events:
                yield event


class RayEngine:
    """Experts in replicas, reached by their deployments' handles."""

    def __init__(self, handles: Mapping[str, Any]) -> None:
        self._handles = {
            name: handle.options(stream=True, method_name="answer") for name, handle in handles.items()
        }

    async def stream(self, expert: str, prompt: str, sampling: Sampling) -> AsyncGenerator[Event]:
        """See `router.engine.worker.Engine.stream`."""
        events = self._handles[expert].remote(prompt, sampling)
        try:
            async for event in events:
                yield event
        except (RouterError, SliceError):
            raise
        except Exception as error:
            raise _told(error, expert) from error
        finally:
            events.cancel()


def import_runtime(path: str) -> OpenBatcher:
    """The function that `module:name` names, called with (folder, file or None, capacity) to open a model.

    Raises:
        BadSettings: there is no such module or no such name in it.
    """
    module, _, name = path.partition(":")
    try:
        opener: OpenBatcher = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise BadSettings(f"the setting `runtime` is {path!r}, which cannot be imported: {error}") from None
    return opener


def _told(error: Exception, expert: str) -> Exception:
    """What came instead of an answer, by its kind: the replica's own error, or that none came.

    An error of the replica comes bare over gRPC, and wrapped in Ray's traceback otherwise.
    """
    from ray.exceptions import RayTaskError
    from ray.serve.exceptions import BackPressureError

    if isinstance(error, BackPressureError):
        return Overloaded(f"{expert} has too many requests waiting; try again later")
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, RouterError | SliceError):
        return cause
    return ExpertFailed(f"{expert} failed: {type(cause).__name__}")
