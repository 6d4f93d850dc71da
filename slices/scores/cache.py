"""Figures that took a run of the parent, as JSON under `$MOM_HOME/scores`, kept by what they are of."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slices.checkpoint import Checkpoint, fingerprint
from slices.errors import BadCheckpoint
from slices.files import atomic
from slices.home import home
from slices.text.corpus import Corpus


def cache_file(kind: str, checkpoint: Checkpoint, text: Corpus, settings: Sequence[object]) -> Path:
    """Where figures of this kind are kept, for a parent, a text and settings."""
    parts = [kind, fingerprint(checkpoint), text.sha256, *settings]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
    return home() / "scores" / f"{kind}-{digest}.json"


def read_figures(path: Path) -> dict[str, Any] | None:
    """What is kept, None if nothing is.

    Raises:
        BadCheckpoint: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadCheckpoint(f"{path}: damaged scores: {error}; delete the file") from None
    if not isinstance(found, dict):
        raise BadCheckpoint(f"{path}: damaged scores: expected an object; delete the file")
    return found


def write_figures(path: Path, figures: dict[str, Any]) -> None:
    """Keep figures, in one step."""
    atomic.write_text(path, json.dumps(figures, indent=1) + "\n")
