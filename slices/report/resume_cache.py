"""The resume cache of `mom eval`: finished parts as JSON under `$MOM_HOME/evaluations`.

Keyed by what was measured on what, so that a changed file or text is measured again. Cleared once the report
is complete, so that a new run measures again.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from slices.files import atomic
from slices.home import home

VERSION = 5
Result = TypeVar("Result", bound=BaseModel)


class EvalCache:
    """The finished parts of one evaluation."""

    def __init__(self) -> None:
        """No entry used yet."""
        self._used: list[Path] = []

    def get(self, kind: type[Result], key: Sequence[object]) -> Result | None:
        """The stored result; None where there is none, or it is damaged."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            return kind.model_validate_json(path.read_bytes())
        except ValidationError:
            return None  # it is measured again

    def put(self, result: BaseModel, key: Sequence[object]) -> None:
        """Store a result, atomically."""
        atomic.write_text(self._path(key), result.model_dump_json())

    def clear(self) -> None:
        """Delete every entry that was read or written."""
        for path in self._used:
            path.unlink(missing_ok=True)

    def _path(self, key: Sequence[object]) -> Path:
        digest = hashlib.sha256(json.dumps([VERSION, *key], default=str).encode()).hexdigest()[:32]
        path = home() / "evaluations" / f"{digest}.json"
        if path not in self._used:
            self._used.append(path)
        return path
