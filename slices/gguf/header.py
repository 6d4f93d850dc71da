"""GGUF headers: what a file says it holds, checked against its size before a runtime maps it.

llama.cpp may end the process on a file that lies, so every file is read here first. Reads no weights, and
knows no architecture: what a model must say is in `slices.gguf.check`.
gguf-py's own reader is not used: it takes 12 s on a vocabulary of 262 thousand tokens, this takes 0.03.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np

from slices.errors import BadCheckpoint, NotFound

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
KINDS = {
    0: "u8", 1: "i8", 2: "u16", 3: "i16", 4: "u32", 5: "i32", 6: "f32", 7: "bool", 8: "str", 10: "u64",
    11: "i64", 12: "f64",
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
_MOST = 2**16  # keys, or tensors
_LARGEST = 2**27  # bytes of a header: Gemma 4's, with all its merges, has 2e7
_MOST_ITEMS = 2**22  # of an array: Gemma 4 has 5e5 merges
_LONGEST_NAME = 63  # bytes of a tensor's name: ggml's field is of 64
_ALIGNMENTS = tuple(2**power for power in range(5, 17))  # ggml reads its data in steps of 32 bytes


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
    """A checked header of `nbytes`. Of an array longer than 1024, `metadata` holds the length only.

    `kinds` tells them apart, by the name of a value's type ("u32", "str"), in brackets for an array
    ("[u32]"); `places` says where an array's items begin.
    """

    metadata: Mapping[str, Any]
    tensors: tuple[GGUFTensor, ...]
    kinds: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, int] = field(default_factory=dict)
    nbytes: int = 0

    @property
    def bits_per_weight(self) -> float:
        """Bits of tensor data for each weight, norms included, metadata not."""
        return 8 * sum(t.nbytes for t in self.tensors) / max(1, sum(t.weights for t in self.tensors))

    def length(self, key: str) -> int:
        """How many items the array `key` has; 0 where there is no such array."""
        found = self.metadata.get(key, 0) if key in self.places else 0
        return found if isinstance(found, int) else len(found)


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
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] != MAGIC:
                raise BadCheckpoint(f"{path}: expected a GGUF file, but it begins with {data[:4]!r}")
            return _Reader(data, path).header()
    except (struct.error, OverflowError, UnicodeDecodeError, IndexError) as error:
        raise BadCheckpoint(f"{path}: the GGUF header is cut short or damaged: {error}") from None
    except PermissionError as error:
        raise BadCheckpoint(f"{path}: it may not be read: {error.strerror}") from None


class _Reader:
    """Walks a header once, from its first byte to its last."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data = data
        self._path = path
        self._at = 4

    def header(self) -> GGUFHeader:
        version, tensors, keys = self._take("<IQQ")
        if version not in _VERSIONS or max(tensors, keys) > _MOST:
            raise self._bad(
                f"expected GGUF version 2 or 3 and at most {_MOST} keys or tensors, "
                f"found version {version} with {keys} keys and {tensors} tensors"
            )
        metadata, kinds, places = self._metadata(keys)
        infos = self._infos(tensors)
        align = metadata.get("general.alignment", 32)
        if kinds.get("general.alignment", "u32") != "u32" or align not in _ALIGNMENTS:
            raise self._bad(f"general.alignment is {align!r}; expected one of {_ALIGNMENTS}")
        nbytes = -(-self._at // align) * align
        return GGUFHeader(
            metadata=metadata,
            tensors=self._placed(infos, nbytes, align),
            kinds=kinds,
            places=places,
            nbytes=nbytes,
        )

    def _metadata(self, keys: int) -> tuple[dict[str, Any], dict[str, str], dict[str, int]]:
        metadata: dict[str, Any] = {}
        kinds: dict[str, str] = {}
        places: dict[str, int] = {}
        for _ in range(keys):
            key = self._word()
            if not key or key in metadata:
                raise self._bad(f"the key {key!r} is empty or occurs twice")
            (kind,) = self._take("<I")
            if kind == _ARRAY:
                inner, count = self._take("<IQ")
                kinds[key], places[key] = f"[{KINDS.get(inner, inner)}]", self._at
                metadata[key] = self._array(key, inner, count)
            else:
                kinds[key] = KINDS.get(kind, str(kind))
                metadata[key] = self._scalar(key, kind)
        return metadata, kinds, places

    def _scalar(self, key: str, kind: int) -> Any:
        if kind == _STRING:
            return self._word()
        if kind not in SCALARS:
            raise self._bad(f"{key} has the unknown type {kind}")
        (value,) = self._take(SCALARS[kind])
        if isinstance(value, float) and not isfinite(value):
            raise self._bad(f"{key} is {value}; expected a finite number")
        return value

    def _array(self, key: str, inner: int, count: int) -> Any:
        if count > _MOST_ITEMS:
            raise self._bad(f"{key} is an array of {count} items; expected at most {_MOST_ITEMS}")
        if inner == _STRING:
            return self._skip_strings(count) if count > _LONG else [self._string() for _ in range(count)]
        if inner not in SCALARS:
            raise self._bad(f"{key} is an array of the unknown type {inner}")
        start, self._at = self._at, self._at + struct.calcsize(SCALARS[inner]) * count
        if self._at > min(len(self._data), _LARGEST):
            raise self._bad(f"the header is cut short in {key}, an array of {count} values")
        values = np.frombuffer(self._data[start : self._at], SCALARS[inner])
        if not np.isfinite(values).all():
            raise self._bad(f"{key} holds a value that is no finite number")
        return count if count > _LONG else values.tolist()

    def _infos(self, count: int) -> list[GGUFTensor]:
        found: dict[str, GGUFTensor] = {}
        for _ in range(count):
            tensor = self._tensor()
            if tensor.name in found:
                raise self._bad(f"tensor {tensor.name!r} occurs twice")
            found[tensor.name] = tensor
        return list(found.values())

    def _tensor(self) -> GGUFTensor:
        name = self._word()
        if not 1 <= len(name.encode()) <= _LONGEST_NAME:
            raise self._bad(f"tensor {name[:80]!r}: expected a name of 1 to {_LONGEST_NAME} bytes")
        (axes,) = self._take("<I")
        if not 1 <= axes <= 4:
            raise self._bad(f"tensor {name!r} has {axes} axes")
        *shape, kind, start = self._take(f"<{axes}QIQ")
        block, nbytes = _BLOCKS.get(kind, (0, 0))
        if not block or not all(shape) or shape[0] % block:
            raise self._bad(f"tensor {name!r} of ggml type {kind} cannot have the shape {shape}")
        return GGUFTensor(
            name=name, shape=tuple(shape), type=kind, start=start, nbytes=prod(shape) // block * nbytes
        )

    def _placed(self, infos: list[GGUFTensor], base: int, align: int) -> tuple[GGUFTensor, ...]:
        """The tensors, which must follow one another: llama.cpp takes no other layout."""
        placed, expected, size = [], 0, len(self._data)
        for tensor in infos:
            if tensor.start != expected:
                raise self._bad(f"tensor {tensor.name!r} lies at {tensor.start}; expected {expected}")
            end = base + expected + tensor.nbytes
            if end > size:
                raise self._bad(
                    f"tensor {tensor.name!r} ends at byte {end}, but the file has {size}: it is cut short"
                )
            placed.append(
                GGUFTensor(
                    name=tensor.name,
                    shape=tensor.shape,
                    type=tensor.type,
                    start=base + expected,
                    nbytes=tensor.nbytes,
                )
            )
            expected += -(-tensor.nbytes // align) * align
        return tuple(placed)

    def _take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return values

    def _string(self) -> str:
        (length,) = self._take("<Q")
        start, self._at = self._at, self._at + length
        if self._at > min(len(self._data), _LARGEST):
            raise IndexError(f"a text of {length} bytes at byte {start} runs past the end")
        return self._data[start : self._at].decode()

    def _word(self) -> str:
        """A text that llama.cpp reads to its end: with a NUL in it, it would see another than we do."""
        text = self._string()
        if "\0" in text:
            raise self._bad(f"the text {text[:80]!r} holds a NUL")
        return text

    def _skip_strings(self, count: int) -> int:
        position, unpack = self._at, struct.Struct("<Q").unpack_from
        last = min(len(self._data), _LARGEST)
        for _ in range(count):
            position += 8 + unpack(self._data, position)[0]
            if position > last:
                raise IndexError(f"an array of {count} texts runs past the end")
        self._at = position
        return count

    def _bad(self, what: str) -> BadCheckpoint:
        return BadCheckpoint(f"{self._path}: {what}; make or fetch the file again")
