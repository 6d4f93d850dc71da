"""The Ray Serve replica of an expert, and the engine that reaches replicas through their handles.

The only part that speaks to a Ray Serve handle. Starting and stopping is `router.serving.lifecycle`'s.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from router.engine.coalesce import chunk_interval
from router.engine.worker import Event, Worker
from router.errors import BadSettings, ExpertFailed, Overloaded, RouterError
from router.experts.catalogue import Expert
from slices.errors import SliceError
from slices.runtime import Batcher, Capacity, Sampling

OpenBatcher = Callable[[Path, Path | None, Capacity], Batcher]


def max_ongoing_requests(capacity: Capacity) -> int:
    """Requests that a replica accepts: its slots and as many queued, so that no slot stays empty.

    All others wait in Ray Serve's queue, from which they can go to another replica and outlive this one.
    """
    return 2 * capacity.max_num_seqs


class ExpertReplica:
    """A replica of an expert: its model, generating several answers at a time.

    Attributes:
        stream: the deployment's method, see `router.engine.worker.Worker.stream`.
    """

    def __init__(self, expert: Expert, runtime: str, capacity: Capacity, nice: int = 0) -> None:
        open_runtime = import_runtime(runtime)
        worker = Worker(
            open_batcher=lambda: open_runtime(expert.folder, expert.file, capacity),
            max_queued_requests=max_ongoing_requests(capacity),
            nice=nice,
            chunk_interval=chunk_interval,
        )
        worker.start()
        self.stream = worker.stream  # the generator itself: nothing stands between it and Ray


class RayEngine:
    """Experts in Ray Serve replicas, reached by their deployments' handles."""

    def __init__(self, handles: Mapping[str, Any]) -> None:
        self._handles = {
            name: handle.options(stream=True, method_name="stream") for name, handle in handles.items()
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
            raise _unwrap_error(error, expert) from error
        finally:
            events.cancel()


def import_runtime(path: str) -> OpenBatcher:
    """The function that `module:name` names, called with (folder, file or None, capacity) to open a model.

    Raises:
        BadSettings: there is no such module or no such name in it.
    """
    module, _, name = path.partition(":")
    try:
        open_batcher: OpenBatcher = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise BadSettings(f"the setting `runtime` is {path!r}, which cannot be imported: {error}") from None
    return open_batcher


def _unwrap_error(error: Exception, expert: str) -> Exception:
    """Ray's exception as ours: the replica's own error, `Overloaded` on back pressure, else `ExpertFailed`.

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
