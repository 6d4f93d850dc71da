"""Safetensors files, written as a stream: the layout first, to the byte, then each tensor in order.

Knows nothing of models. Who calls it supplies the bytes of each tensor.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from slices.files.safetensors_header import ITEM_BYTES

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
_METADATA = {"format": "pt"}  # transformers refuses files that do not say so


@dataclass(frozen=True)
class Slot:
    """A tensor to be written: `shape` and `dtype` fix its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        count = 1
        for side in self.shape:
            count *= side
        return count * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Shard:
    """One file of the output: its header (length prefix included) and its tensors in order."""

    file: str
    header: bytes
    slots: tuple[Slot, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + sum(slot.nbytes for slot in self.slots)


@dataclass(frozen=True)
class Layout:
    """All files of a checkpoint's weights, known to the byte before any is written."""

    shards: tuple[Shard, ...]
    index: bytes | None  # model.safetensors.index.json, where there are several shards

    @property
    def nbytes(self) -> int:
        """Bytes of all shards and the index."""
        return sum(shard.nbytes for shard in self.shards) + len(self.index or b"")


def lay_out(slots: Sequence[Slot], shard_bytes: int = SHARD_BYTES) -> Layout:
    """Distribute `slots`, in order, over shards of at most `shard_bytes` of data (or one bigger tensor)."""
    groups: list[list[Slot]] = [[]]
    filled = 0
    for slot in slots:
        if groups[-1] and filled + slot.nbytes > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(slot)
        filled += slot.nbytes
    total = len(groups)
    names = [
        "model.safetensors" if total == 1 else f"model-{i + 1:05d}-of-{total:05d}.safetensors"
        for i in range(total)
    ]
    shards = tuple(Shard(n, _header(g), tuple(g)) for n, g in zip(names, groups, strict=True))
    return Layout(shards, _index(shards) if total > 1 else None)


def write(folder: Path, layout: Layout, fill: Callable[[Slot, BinaryIO], None]) -> None:
    """Write `layout` into `folder`; `fill(slot, file)` writes exactly the bytes of one tensor."""
    for shard in layout.shards:
        with (folder / shard.file).open("wb", buffering=0) as file:
            write_all(file, shard.header)
            for slot in shard.slots:
                fill(slot, file)
            if file.tell() != shard.nbytes:
                raise RuntimeError(f"{shard.file}: wrote {file.tell()} bytes, planned {shard.nbytes}")
    write_index(folder, layout)


def write_index(folder: Path, layout: Layout) -> int:
    """Write the index, where there are several shards; returns its bytes."""
    if layout.index is not None:
        (folder / INDEX).write_bytes(layout.index)
    return len(layout.index or b"")


def write_all(file: BinaryIO, data: bytes | memoryview) -> int:
    """Write all of `data` to an unbuffered file, which may take it in parts; returns its length."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    return len(data)


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """The same at `offset` of a file descriptor, whose position stays as it is."""
    rest = memoryview(data)
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[count:], offset + count
    return len(data)


def _header(slots: Sequence[Slot]) -> bytes:
    entries: dict[str, object] = {"__metadata__": _METADATA}
    offset = 0
    for slot in slots:
        end = offset + slot.nbytes
        entries[slot.name] = {"dtype": slot.dtype, "shape": list(slot.shape), "data_offsets": [offset, end]}
        offset = end
    body = json.dumps(entries, separators=(",", ":")).encode()
    body += b" " * (-len(body) % 8)
    return len(body).to_bytes(8, "little") + body


def _index(shards: Sequence[Shard]) -> bytes:
    files = {slot.name: shard.file for shard in shards for slot in shard.slots}
    size = sum(slot.nbytes for shard in shards for slot in shard.slots)
    return json.dumps({"metadata": {"total_size": size}, "weight_map": files}, indent=2).encode() + b"\n"
