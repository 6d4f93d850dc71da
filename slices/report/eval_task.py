"""The tasks of `mom eval --tasks`."""

from collections.abc import Iterable
from enum import StrEnum

from slices.errors import BadConfig


class EvalTask(StrEnum):
    """What `mom eval` measures; `TEXT` always is."""

    TEXT = "text"
    MCQ = "mcq"
    GENERATE = "generate"
    CODE = "code"
    PROBES = "probes"
    COST = "cost"
    LONG_CONTEXT = "long-context"


QUESTION_TASKS = frozenset({EvalTask.MCQ, EvalTask.GENERATE, EvalTask.CODE})  # tasks with questions as data


def parse_tasks(text: str) -> frozenset[EvalTask]:
    """The tasks of a comma-separated list, or all of them for "all".

    Raises:
        BadConfig: one of them is unknown.
    """
    names: Iterable[str] = EvalTask if text == "all" else [part.strip() for part in text.split(",")]
    try:
        return frozenset(map(EvalTask, names))
    except ValueError:
        unknown = next(name for name in names if name not in list(EvalTask))
        raise BadConfig(
            f"--tasks {text}: no task {unknown!r}; expected some of {', '.join(EvalTask)}, or all"
        ) from None
