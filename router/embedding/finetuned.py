"""What a tuned encoder's folder says of it: its name, and by a rule which queries it did not learn from."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.errors import BadSettings

FILE = "tuned.json"
BACK = 15  # % of the queries that are kept back
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def learned(text: str) -> bool:
    """Whether an encoder that is tuned learns from a query, by its hash; the others are kept back."""
    found = hashlib.sha1(f"tune:{text}".encode("utf-8", "replace")).digest()
    return int.from_bytes(found[:4], "big") % 100 >= BACK


def kept_back(texts: Iterable[str]) -> NDArray[np.bool_]:
    """Which of the queries are kept back, (n,)."""
    return np.array([not learned(text) for text in texts], dtype=np.bool_)


def tuned_name(source: str | Path | None) -> str | None:
    """The name of the tuned encoder in the folder `source`; None if that is none.

    Raises:
        BadSettings: the folder's record is damaged.
    """
    file = None if source is None else Path(source) / FILE
    if file is None or not file.is_file():
        return None
    try:
        name = json.loads(file.read_text(encoding="utf-8"))["name"]
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadSettings(f"{file} is damaged: it does not name an encoder; tune it again")
    return name
