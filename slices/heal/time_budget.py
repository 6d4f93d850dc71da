"""How many steps fit into a time: a few are tried, and the answer is kept, so that a killed run goes on."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from slices.errors import BadConfig
from slices.files import atomic
from slices.files.safetensors_header import parse_json_object
from slices.home import home

TRIED = 3  # steps that are timed, after one that warms up
_MEASURING = 1.1  # of the steps' own time, held-out text included


Kind = tuple[float, Callable[[], object]]  # which share of the steps is like this, and one of them


def steps_within(minutes: float, parts: Mapping[str, Any], kinds: Sequence[Kind]) -> int:
    """Steps that take `minutes` here, by calling one of each kind, which must leave no trace.

    Args:
        parts: what identifies the run; asked again for the same parts and minutes, the answer stays.

    Raises:
        BadConfig: `minutes` is not positive, or too short for a step.
    """
    if not 0 < minutes < float("inf"):
        raise BadConfig(f"--minutes {minutes}: expected a positive number")
    text = json.dumps({**parts, "minutes": minutes}, sort_keys=True, default=str)
    path = home() / "healing" / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"
    if path.is_file():
        return int(parse_json_object(path.read_bytes(), path)["steps"])
    seconds = sum(share * _timed(step) for share, step in kinds if share)
    steps = int(minutes * 60 / (seconds * _MEASURING))
    if steps < 1:
        raise BadConfig(f"--minutes {minutes}: too short for a single step here; take a smaller --batch")
    atomic.write_text(path, json.dumps({"steps": steps}) + "\n")
    return steps


def _timed(step: Callable[[], object]) -> float:
    """Seconds of a step."""
    step()
    begun = monotonic()
    for _ in range(TRIED):
        step()
    return max((monotonic() - begun) / TRIED, 1e-6)
