"""The long arrays of a GGUF header, which `slices.gguf.header` only counts: a vocabulary's."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.gguf.header import KINDS, SCALARS, GGUFHeader


def read_texts(path: Path, header: GGUFHeader, key: str) -> list[bytes]:
    """The items of the array of texts `key`, undecoded; none where there is no such array."""
    if header.kinds.get(key) != "[str]":
        return []
    region = _region(path, header, key)
    texts, position, unpack = [], 0, struct.Struct("<Q").unpack_from
    for _ in range(header.length(key)):
        start = position + 8
        position = start + unpack(region, position)[0]
        texts.append(region[start:position])
    return texts


def read_numbers(path: Path, header: GGUFHeader, key: str) -> NDArray[Any]:
    """The items of the array of numbers `key`, shape (length,); none where there is no such array."""
    kind = next((code for code in SCALARS if f"[{KINDS[code]}]" == header.kinds.get(key)), None)
    if kind is None:
        return np.empty(0)
    return np.frombuffer(_region(path, header, key), SCALARS[kind], header.length(key))


def _region(path: Path, header: GGUFHeader, key: str) -> bytes:
    with path.open("rb") as file:
        file.seek(header.places[key])
        return file.read(header.nbytes - header.places[key])
