"""A time budget as a number of optimizer steps; cached, so that a killed run resumes as the same run."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from slices.errors import BadConfig
from slices.files import atomic
from slices.files.safetensors_header import parse_json_object
from slices.home import home

TIMED_STEPS = 3  # after one warm-up step
_EVAL_OVERHEAD = 1.1  # of the time of the steps, for evaluation on held-out text

StepKind = tuple[float, Callable[[], object]]  # fraction of the steps, and a function that runs one


def steps_within(minutes: float, key: Mapping[str, Any], kinds: Sequence[StepKind]) -> int:
    """The number of optimizer steps that take `minutes` on this machine, timed on one step of each kind.

    Args:
        key: what identifies the run; the answer for the same key and minutes is cached on disk.
        kinds: timed functions must leave the model as it was.

    Raises:
        BadConfig: `minutes` is not positive, or too short for one step.
    """
    if not 0 < minutes < float("inf"):
        raise BadConfig(f"--minutes {minutes}: expected a positive number")
    text = json.dumps({**key, "minutes": minutes}, sort_keys=True, default=str)
    path = home() / "healing" / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"
    if path.is_file():
        return int(parse_json_object(path.read_bytes(), path)["steps"])
    seconds = sum(fraction * _seconds_per_step(step) for fraction, step in kinds if fraction)
    steps = int(minutes * 60 / (seconds * _EVAL_OVERHEAD))
    if steps < 1:
        raise BadConfig(f"--minutes {minutes}: too short for a single step here; take a smaller --batch")
    atomic.write_text(path, json.dumps({"steps": steps}) + "\n")
    return steps


def _seconds_per_step(step: Callable[[], object]) -> float:
    step()
    start = monotonic()
    for _ in range(TIMED_STEPS):
        step()
    return max((monotonic() - start) / TIMED_STEPS, 1e-6)
