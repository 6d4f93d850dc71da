"""The record of a fine-tuned encoder's folder: its name, and the hash rule of its train/holdout split."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.errors import BadSettings

FILE = "tuned.json"
SCHEMA = 2
HOLDOUT_PERCENT = 15  # of the queries
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_training_query(text: str) -> bool:
    """Whether a query is in the training split of fine-tuning, by its hash; the others are held out."""
    digest = hashlib.sha1(f"tune:{text}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:4], "big") % 100 >= HOLDOUT_PERCENT


def holdout_mask(texts: Iterable[str]) -> NDArray[np.bool_]:
    """Which of the queries are held out, (n,)."""
    return np.array([not is_training_query(text) for text in texts], dtype=np.bool_)


def finetuned_name(source: str | Path | None) -> str | None:
    """The name of the fine-tuned encoder in the folder `source`; None where it is not one.

    Raises:
        BadSettings: the record is damaged or of another schema.
    """
    file = None if source is None else Path(source) / FILE
    if file is None or not file.is_file():
        return None
    try:
        record = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise BadSettings(f"{file} is damaged: it is not a JSON object; run `mom route tune` again") from None
    if record.get("schema") != SCHEMA:
        schema = record.get("schema")
        raise BadSettings(f"{file} has schema {schema}, expected {SCHEMA}; run `mom route tune` again")
    name = record.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadSettings(f"{file} is damaged: it does not name an encoder; run `mom route tune` again")
    return name
