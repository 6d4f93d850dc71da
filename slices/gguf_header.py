"""GGUF headers: what a file says it holds, checked against its size before a runtime maps it.

llama.cpp may end the process on a file that lies, so every file is read here first. Reads no weights.
gguf-py's own reader is not used: it takes 12 s on a vocabulary of 262 thousand tokens, this takes 0.1.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from slices.errors import BadCheckpoint, NotFound

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
# ggml type -> (weights, bytes) of a block
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110),
    22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8),
    29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
_LONG = 1024  # arrays above it are counted, not kept: they are vocabularies


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor: `shape` is ggml's (the contiguous axis first), `start` counts from the file's beginning."""

    name: str
    shape: tuple[int, ...]
    type: int
    start: int
    nbytes: int

    @property
    def weights(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@dataclass(frozen=True)
class GGUFHeader:
    """A checked header. Of an array longer than 1024, `metadata` holds the length only."""

    metadata: Mapping[str, Any]
    tensors: tuple[GGUFTensor, ...]

    @property
    def bits_per_weight(self) -> float:
        """Bits of tensor data for each weight, norms included, metadata not."""
        return 8 * sum(t.nbytes for t in self.tensors) / max(1, sum(t.weights for t in self.tensors))


def read_gguf_header(path: Path) -> GGUFHeader:
    """Read and check the header of a GGUF file.

    Raises:
        NotFound: there is no such file.
        BadCheckpoint: it is no GGUF file, is cut short, or its header contradicts itself.
    """
    if not path.is_file():
        raise NotFound(f"no such file: {path}")
    size = path.stat().st_size
    if size < 24:
        raise BadCheckpoint(f"{path}: expected a GGUF file, found only {size} bytes")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != MAGIC:
            raise BadCheckpoint(f"{path}: expected a GGUF file, but it begins with {data[:4]!r}")
        try:
            return _parse(data, path)
        except (struct.error, OverflowError, UnicodeDecodeError, IndexError) as error:
            raise BadCheckpoint(f"{path}: the GGUF header is cut short or damaged: {error}") from None


def _parse(data: mmap.mmap, path: Path) -> GGUFHeader:
    version, tensors, keys = struct.unpack_from("<IQQ", data, 4)
    if version not in _VERSIONS or max(tensors, keys) > len(data):
        raise BadCheckpoint(f"{path}: expected GGUF version 2 or 3, found {version} with {tensors} tensors")
    metadata: dict[str, Any] = {}
    position = 24
    for _ in range(keys):
        key, position = _string(data, position)
        (kind,) = struct.unpack_from("<I", data, position)
        metadata[key], position = _value(data, position + 4, kind, path)
    infos = []
    for _ in range(tensors):
        info, position = _tensor(data, position, path)
        infos.append(info)
    align = metadata.get("general.alignment", 32)
    if not isinstance(align, int) or align <= 0:
        raise BadCheckpoint(f"{path}: general.alignment is {align!r}")
    return GGUFHeader(metadata, _place(infos, -(-position // align) * align, len(data), path))


def _place(infos: list[GGUFTensor], base: int, size: int, path: Path) -> tuple[GGUFTensor, ...]:
    placed = tuple(GGUFTensor(t.name, t.shape, t.type, base + t.start, t.nbytes) for t in infos)
    for tensor in placed:
        end = tensor.start + tensor.nbytes
        if end > size:
            raise BadCheckpoint(
                f"{path}: tensor {tensor.name!r} ends at byte {end}, but the file has {size}: it is cut short"
            )
    return placed


def _tensor(data: mmap.mmap, position: int, path: Path) -> tuple[GGUFTensor, int]:
    name, position = _string(data, position)
    (axes,) = struct.unpack_from("<I", data, position)
    if not 1 <= axes <= 4:
        raise BadCheckpoint(f"{path}: tensor {name!r} has {axes} axes")
    *shape, kind, start = struct.unpack_from(f"<{axes}QIQ", data, position + 4)
    block, nbytes = _BLOCKS.get(kind, (0, 0))
    if not block or not shape[0] or shape[0] % block:
        raise BadCheckpoint(f"{path}: tensor {name!r} of ggml type {kind} cannot have the shape {shape}")
    found = GGUFTensor(name, tuple(shape), kind, start, prod(shape) // block * nbytes)
    return found, position + 4 + 8 * axes + 12


def _value(data: mmap.mmap, position: int, kind: int, path: Path) -> tuple[Any, int]:
    if kind in _SCALARS:
        (value,) = struct.unpack_from(_SCALARS[kind], data, position)
        return value, position + struct.calcsize(_SCALARS[kind])
    if kind == _STRING:
        return _string(data, position)
    if kind != _ARRAY:
        raise BadCheckpoint(f"{path}: the GGUF header holds a value of the unknown type {kind}")
    inner, count = struct.unpack_from("<IQ", data, position)
    return _array(data, position + 12, inner, count, path)


def _array(data: mmap.mmap, position: int, inner: int, count: int, path: Path) -> tuple[Any, int]:
    if inner in _SCALARS:
        width = struct.calcsize(_SCALARS[inner])
        end = position + width * count
        if end > len(data):
            raise BadCheckpoint(f"{path}: the GGUF header is cut short in an array of {count} values")
        if count > _LONG:
            return count, end
        return [value for (value,) in struct.iter_unpack(_SCALARS[inner], data[position:end])], end
    if inner != _STRING:
        raise BadCheckpoint(f"{path}: the GGUF header holds an array of the unknown type {inner}")
    if count > _LONG:
        return count, _skip_strings(data, position, count)
    strings = []
    for _ in range(count):
        text, position = _string(data, position)
        strings.append(text)
    return strings, position


def _skip_strings(data: mmap.mmap, position: int, count: int) -> int:
    unpack = struct.Struct("<Q").unpack_from
    for _ in range(count):
        position += 8 + unpack(data, position)[0]
    return position


def _string(data: mmap.mmap, position: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, position)
    end = position + 8 + length
    if end > len(data):
        raise IndexError(f"a text of {length} bytes at byte {position} runs past the end")
    return data[position + 8 : end].decode(), end
