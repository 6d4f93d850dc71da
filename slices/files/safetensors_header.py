"""Safetensors headers: which tensors a file holds and where, checked before a byte of them is believed.

Reads headers only. The format: 8 bytes of little-endian header length, a JSON header, then the data.
"""

import hashlib
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slices.errors import BadCheckpoint

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip
_MAX_HEADER = 100_000_000  # the format's own limit
_MAX_AXES = 8
_MAX_NAME = 512  # characters
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Entry:
    """One tensor in a file. `start` counts from the beginning of the file, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    nbytes: int

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_header(path: Path) -> tuple[list[Entry], str]:
    """The tensors of a safetensors file in the order of their data, and the sha256 of its header.

    Raises:
        BadCheckpoint: the file is cut short, the header is not what the format demands, or the ranges
            overlap, leave a gap, run past the end or disagree with dtype and shape. It names the tensor.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise BadCheckpoint(
                f"{path}: expected a safetensors header inside the file's {size} bytes, "
                f"found a stated length of {length}: the file is cut short or is no safetensors file"
            )
        raw = file.read(length)
    header = parse_json_object(raw, path)
    header.pop("__metadata__", None)
    entries = [_entry(path, name, value, 8 + length) for name, value in header.items()]
    entries.sort(key=lambda entry: (entry.start, entry.nbytes))
    _check_ranges(path, entries, 8 + length, size)
    return entries, hashlib.sha256(raw).hexdigest()


def parse_json_object(raw: bytes, path: Path) -> dict[str, Any]:
    """Parse a JSON object, refusing duplicate keys, bad UTF-8, lone surrogates and endless nesting.

    Raises:
        BadCheckpoint: it is not such an object; `path` is named.
    """
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except RecursionError:
        raise BadCheckpoint(f"{path}: the JSON is nested too deeply") from None
    except ValueError as error:
        raise BadCheckpoint(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {_shown(twice)} occurs twice")
    return found


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


def _shown(name: str) -> str:
    """A name from a file as a message may show it."""
    return repr(name if len(name) <= _MAX_NAME else f"{name[:40]}...")


def _entry(path: Path, name: str, value: object, data: int) -> Entry:
    if len(name) > _MAX_NAME:
        raise BadCheckpoint(f"{path}: a tensor's name, {_shown(name)}, has {len(name):,} characters")
    match value:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if (
            dtype in ITEM_BYTES and len(shape) <= _MAX_AXES and all(map(_is_count, [*shape, begin, end]))
        ):
            entry = Entry(
                name=name, dtype=dtype, shape=tuple(shape), file=path, start=data + begin, nbytes=end - begin
            )
        case _:
            raise BadCheckpoint(
                f"{path}: tensor {name!r}: its header entry has no valid dtype, shape and offsets"
            )
    expected = entry.parameters * ITEM_BYTES[dtype]
    if entry.nbytes != expected:
        raise BadCheckpoint(
            f"{path}: tensor {name!r}: {dtype} of shape {list(shape)} takes {expected} bytes, "
            f"but its offsets span {entry.nbytes}"
        )
    return entry


def _check_ranges(path: Path, entries: list[Entry], start: int, size: int) -> None:
    position = start
    for entry in entries:
        if entry.start != position:
            problem = "overlaps the one before it" if entry.start < position else "leaves a gap before it"
            raise BadCheckpoint(f"{path}: tensor {entry.name!r} {problem}")
        position += entry.nbytes
    if position != size:
        raise BadCheckpoint(
            f"{path}: the header describes {position} bytes but the file has {size}: "
            f"{'it is cut short' if position > size else 'it has bytes that no tensor owns'}"
        )
