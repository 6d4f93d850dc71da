"""What a report has measured so far, as JSON under `$MOM_HOME/evaluations`: an interrupted run goes on.

Kept by what was measured on what, so that a changed file or text is measured anew. Forgotten once the report
is complete, so that asking again measures again.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from slices.files import atomic
from slices.home import home

VERSION = 2
Part = TypeVar("Part", bound=BaseModel)


class Memory:
    """The parts of one run."""

    def __init__(self) -> None:
        """Nothing asked yet."""
        self._used: list[Path] = []

    def recall(self, kind: type[Part], key: Sequence[object]) -> Part | None:
        """A part that was measured before; None if it was not, or is damaged."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            return kind.model_validate_json(path.read_bytes())
        except ValidationError:
            return None  # it is measured again

    def keep(self, part: BaseModel, key: Sequence[object]) -> None:
        """Write a part, in one step."""
        atomic.write_text(self._path(key), part.model_dump_json())

    def forget(self) -> None:
        """Delete what was asked for or kept."""
        for path in self._used:
            path.unlink(missing_ok=True)

    def _path(self, key: Sequence[object]) -> Path:
        digest = hashlib.sha256(json.dumps([VERSION, *key], default=str).encode()).hexdigest()[:32]
        path = home() / "evaluations" / f"{digest}.json"
        if path not in self._used:
            self._used.append(path)
        return path
