"""Training checkpoints: a killed healing run resumes from them to the same weights, to the bit.

A folder `$MOM_HOME/healing/<id>` holds `run.json`, written last, and the two files that it names: the
checkpoint (trainable parameters and AdamW's moments, float32) and the best weights on held-out text.
Never pickled. The id is a hash of everything that determines the weights.
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
from slices.heal.curve import EvalPoint
from slices.home import home

RECORD = "run.json"
SCHEMA = 2


@dataclass
class RunState:
    """Progress of a run: optimizer steps done, the step of the best weights (0: as given), the curve."""

    folder: Path
    step: int = 0
    best: int = 0
    seconds: float = 0.0
    curve: list[EvalPoint] = field(default_factory=list)

    @property
    def state_file(self) -> Path:
        """The checkpoint after `step` steps."""
        return self.folder / f"state-{self.step}.safetensors"

    @property
    def best_file(self) -> Path:
        """The weights of the best evaluation."""
        return self.folder / f"best-{self.best}.safetensors"

    def point(self, step: int) -> EvalPoint:
        """The evaluation after `step` steps."""
        return next(point for point in self.curve if point.step == step)


def open_run(key: Mapping[str, Any]) -> RunState:
    """The run identified by `key`, from its last checkpoint; a new one if there is none.

    Raises:
        BadCheckpoint: what is on disk is damaged or of another schema; the file is named.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:20]
    folder = home() / "healing" / digest
    path = folder / RECORD
    if not path.is_file():
        return RunState(folder)
    run = _read_record(path)
    missing = [file for file in _files(run) if not file.is_file()]
    if missing:
        raise BadCheckpoint(f"{missing[0]} is missing; delete {folder} to begin anew")
    return run


def save(run: RunState, checkpoint: Mapping[str, Any], best: Mapping[str, Any] | None) -> None:
    """Write the run's checkpoint; `best` are new best weights, None if those on disk still are."""
    run.folder.mkdir(parents=True, exist_ok=True)
    _write(run.state_file, checkpoint)
    if best is not None:
        _write(run.best_file, best)
    record = {
        "schema": SCHEMA,
        "step": run.step,
        "best": run.best,
        "seconds": round(run.seconds, 3),
        "curve": [point.to_json() for point in run.curve],
    }
    atomic.write_text(run.folder / RECORD, json.dumps(record, indent=1) + "\n")
    for file in set(run.folder.glob("*.safetensors")) - set(_files(run)):
        file.unlink()


def read(path: Path) -> dict[str, Any]:
    """The tensors of a file of the run, by name.

    Raises:
        BadCheckpoint: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Any] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(f"{path}: damaged: {error}; delete {path.parent} to begin anew") from None
    return tensors


def delete(run: RunState) -> None:
    """Remove the folder of a finished run."""
    shutil.rmtree(run.folder, ignore_errors=True)


def _read_record(path: Path) -> RunState:
    folder = path.parent
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("schema", 1) != SCHEMA:
            raise BadCheckpoint(
                f"{path}: expected schema {SCHEMA}, found {record.get('schema', 1)}: another version of mom "
                f"wrote it; delete {folder} to begin anew"
            )
        return RunState(
            folder=folder,
            step=int(record["step"]),
            best=int(record["best"]),
            seconds=float(record["seconds"]),
            curve=[EvalPoint.from_json(point) for point in record["curve"]],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadCheckpoint(f"{path}: damaged: {error}; delete {folder} to begin anew") from None


def _files(run: RunState) -> list[Path]:
    """The files that the record names."""
    files = [run.state_file] if run.step else []
    return files + ([run.best_file] if run.best else [])


def _write(path: Path, tensors: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    with atomic.staged(path, force=True) as partial:
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial)
