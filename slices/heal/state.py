"""A healing run on disk: what it has learned so far, so that a killed one goes on to the same weights.

A folder `$MOM_HOME/healing/<id>` with `run.json`, written last, which names the two files that go with it:
the state (trained weights and AdamW's moments, float32) and the best weights on held-out text so far.
Never pickled. The id is of everything that decides the weights.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slices.errors import BadCheckpoint
from slices.files import atomic
from slices.heal.curve import Point
from slices.home import home

RECORD = "run.json"


@dataclass
class Run:
    """A run so far. `step` steps are done; `best` is the best weights' step, 0: as given."""

    folder: Path
    step: int = 0
    best: int = 0
    seconds: float = 0.0
    curve: list[Point] = field(default_factory=list)

    @property
    def state_file(self) -> Path:
        """Trained weights and moments after `step` steps."""
        return self.folder / f"state-{self.step}.safetensors"

    @property
    def best_file(self) -> Path:
        """The weights of the best point."""
        return self.folder / f"best-{self.best}.safetensors"

    def point(self, step: int) -> Point:
        """The point measured after `step` steps."""
        return next(point for point in self.curve if point.step == step)


def open_run(parts: Mapping[str, Any]) -> Run:
    """The run that `parts` identify, as far as it came; a new one if it never began.

    Raises:
        BadCheckpoint: what is on disk is damaged; the file is named.
    """
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]
    folder = home() / "healing" / digest
    path = folder / RECORD
    if not path.is_file():
        return Run(folder)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        curve = [Point.from_json(point) for point in found["curve"]]
        run = Run(folder, int(found["step"]), int(found["best"]), float(found["seconds"]), curve)
    except (ValueError, KeyError, TypeError) as error:
        raise BadCheckpoint(f"{path}: damaged: {error}; delete {folder} to begin anew") from None
    missing = [file for file in _needed(run) if not file.is_file()]
    if missing:
        raise BadCheckpoint(f"{missing[0]} is missing; delete {folder} to begin anew")
    return run


def save(run: Run, state: Mapping[str, Any], best: Mapping[str, Any] | None) -> None:
    """Keep the run as it stands; `best` are new best weights, None if those on disk still are."""
    run.folder.mkdir(parents=True, exist_ok=True)
    _write(run.state_file, state)
    if best is not None:
        _write(run.best_file, best)
    record = {
        "step": run.step,
        "best": run.best,
        "seconds": round(run.seconds, 3),
        "curve": [point.to_json() for point in run.curve],
    }
    atomic.write_text(run.folder / RECORD, json.dumps(record, indent=1) + "\n")
    for file in set(run.folder.glob("*.safetensors")) - set(_needed(run)):
        file.unlink()


def read(path: Path) -> dict[str, Any]:
    """The tensors of a file of the run, by name.

    Raises:
        BadCheckpoint: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, Any] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(f"{path}: damaged: {error}; delete {path.parent} to begin anew") from None
    return found


def discard(run: Run) -> None:
    """Remove the run's folder: it is finished."""
    shutil.rmtree(run.folder, ignore_errors=True)


def _needed(run: Run) -> list[Path]:
    files = [run.state_file] if run.step else []
    return files + ([run.best_file] if run.best else [])


def _write(path: Path, tensors: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    with atomic.staged(path, force=True) as partial:
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial)
