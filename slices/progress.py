"""The progress callback that every long operation takes."""

from typing import Protocol


class Progress(Protocol):
    """A progress callback: `done` of `total` units of `stage` are finished."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report progress. Called from the thread that does the work; should return quickly."""
        ...


def no_progress(stage: str, done: int, total: int) -> None:
    """The progress callback that discards every report."""
