"""Cached scores as JSON under `$MOM_HOME/scores`, keyed by parent, text and settings."""

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

SCHEMA = 2


def cache_file(kind: str, checkpoint: Checkpoint, text: Corpus, settings: Sequence[object]) -> Path:
    """The cache file of scores of this kind for a parent, a text and settings."""
    parts = [kind, fingerprint(checkpoint), text.sha256, *settings]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
    return home() / "scores" / f"{kind}-{digest}.json"


def read_scores(path: Path) -> dict[str, Any] | None:
    """Cached scores, None if there are none.

    Raises:
        BadCheckpoint: the file is damaged, or of another schema.
    """
    if not path.is_file():
        return None
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadCheckpoint(f"{path}: damaged scores: {error}; delete the file") from None
    if not isinstance(scores, dict):
        raise BadCheckpoint(f"{path}: damaged scores: expected an object; delete the file")
    if scores.get("schema", 1) != SCHEMA:
        raise BadCheckpoint(
            f"{path}: expected schema {SCHEMA}, found {scores.get('schema', 1)}: another version of mom "
            "wrote these scores; delete the file"
        )
    return scores


def write_scores(path: Path, scores: dict[str, Any]) -> None:
    """Cache scores, atomically."""
    atomic.write_text(path, json.dumps({"schema": SCHEMA, **scores}, indent=1) + "\n")
