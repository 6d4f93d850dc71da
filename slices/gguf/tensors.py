"""Every tensor of a slice's GGUF: its name there, its shape, and its bytes a chunk at a time.

Most are a tensor of the checkpoint as it is. Those with a part for each layer (per-layer embeddings)
get zeros where the GGUF has identity layers, which themselves have no counterpart in the checkpoint.
Nothing here knows the file's format.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slices.architecture.anatomy import Anatomy
from slices.dialects.table import Block, Blocks, Dialect, Floats
from slices.errors import BadCheckpoint, Unsupported
from slices.families.table import Rule, axis_sizes
from slices.files.safetensors_header import Entry

Precision = Literal["BF16", "F32"]
WIDTH: Mapping[Precision, int] = {"BF16": 2, "F32": 4}
_NUMPY = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}
_CHUNK = 2**24  # numbers in memory at once: 64 MB as float32


@dataclass(frozen=True)
class GGUFSource:
    """One tensor to write: `shape` with the contiguous axis last, chunks that are its numbers in order.

    Matrices are written in the precision of the file, as float32 or as the bits of bfloat16 in uint16;
    vectors are float32 always.
    """

    name: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[NDArray[Any]]]

    @property
    def matrix(self) -> bool:
        """Whether it is written in the precision of the file, and may be quantized."""
        return len(self.shape) > 1

    def nbytes(self, precision: Precision) -> int:
        """Bytes that it takes."""
        return prod(self.shape) * (WIDTH[precision] if self.matrix else 4)


def name_tensors(anatomy: Anatomy, dialect: Dialect, blocks: Blocks) -> dict[str, str]:
    """What every tensor that the model may have is called in its GGUF, by its name without prefix."""
    names: dict[str, str] = {}
    for here, there in dialect.names.items():
        if "{}" not in here:
            names[here] = there
            continue
        for index, block in enumerate(blocks):
            if block.source is not None:
                names[here.format(block.source)] = there.format(index)
    return names


def list_sources(
    entries: Mapping[str, Entry], anatomy: Anatomy, dialect: Dialect, blocks: Blocks, precision: Precision
) -> list[GGUFSource]:
    """Every tensor of the GGUF, in the order of the file.

    Raises:
        BadCheckpoint: a tensor has no name there.
        Unsupported: a tensor is of a dtype that is none of BF16, F16 and F32.
    """
    expected = anatomy.tensors
    names = name_tensors(anatomy, dialect, blocks)
    live = {name: entry for name, entry in entries.items() if not expected[name].dead}
    unnamed = live.keys() - names.keys()
    if unnamed:
        raise BadCheckpoint(f"tensor {min(unnamed)!r} has no name in a {dialect.arch} GGUF")
    found = []
    for here, there in names.items():
        if here in live:
            rule = expected[here].rule
            found.append(_from_entry(there, here, live[here], rule, anatomy, dialect, blocks, precision))
    for index, block in enumerate(blocks):
        if block.source is None:
            found += _identity_layer(index, block, anatomy, dialect, len(blocks), precision)
    extra = dialect.vectors(anatomy, blocks)
    return found + [_from_vector(name, values) for name, values in extra.items()]


def _from_vector(name: str, values: Floats) -> GGUFSource:
    return GGUFSource(name, values.shape, lambda: iter([values]))


def _from_entry(
    there: str, here: str, entry: Entry, rule: Rule, anatomy: Anatomy, dialect: Dialect, blocks: Blocks,
    precision: Precision,
) -> GGUFSource:  # fmt: skip
    if entry.dtype not in _NUMPY:
        raise Unsupported(
            f"{entry.file.name}: tensor {entry.name!r} is {entry.dtype}; expected BF16, F16 or F32"
        )
    if len(entry.shape) == 1:
        return GGUFSource(
            there,
            entry.shape,
            lambda: iter([dialect.adjust(here, _to_float(_stored(entry), entry), anatomy)]),
        )
    if "ple_layers" in rule.axes and any(block.source is None for block in blocks):
        return _with_gaps(there, entry, rule.axes.index("ple_layers"), anatomy.dims.ple, blocks, precision)
    return GGUFSource(there, entry.shape, lambda: (_cast(part, entry, precision) for part in _parts(entry)))


def _with_gaps(
    name: str, entry: Entry, axis: int, ple: int, blocks: Blocks, precision: Precision
) -> GGUFSource:
    """The tensor with zeros where its `axis`, one part of `ple` a layer, has an identity layer's part."""
    kept = np.array([index for index, block in enumerate(blocks) if block.source is not None])
    order = [block.source for block in blocks if block.source is not None]
    shape = tuple(len(blocks) * ple if at == axis else side for at, side in enumerate(entry.shape))

    def by_column() -> Iterator[NDArray[Any]]:
        for part in _parts(entry):
            numbers = _cast(part, entry, precision).reshape(len(part), -1, ple)
            wide = np.zeros((len(part), len(blocks), ple), numbers.dtype)
            wide[:, kept] = numbers[:, order]
            yield wide

    def by_row() -> Iterator[NDArray[Any]]:
        stored = _stored(entry).reshape(-1, ple, *entry.shape[1:])
        for block in blocks:
            part = stored[0 if block.source is None else block.source]
            numbers = _cast(part, entry, precision)
            yield np.zeros_like(numbers) if block.source is None else numbers

    return GGUFSource(name, shape, by_column if axis else by_row)


def _identity_layer(
    index: int, block: Block, anatomy: Anatomy, dialect: Dialect, count: int, precision: Precision
) -> Iterator[GGUFSource]:
    """The tensors of a block that hands its input on: matrices of zeros, vectors of ones."""
    dense = {**anatomy.config, "enable_moe_block": False}
    sizes = axis_sizes(anatomy.dims, block.layer, count)
    for rule in anatomy.family.read_rules(dense):
        if "{}" in rule.name and rule.when(block.layer):
            shape = tuple(sizes[axis] for axis in rule.axes)
            name = dialect.names[rule.name].format(index)
            yield _zeros(name, shape, precision) if len(shape) > 1 else _from_vector(name, _ones(shape))


def _zeros(name: str, shape: tuple[int, ...], precision: Precision) -> GGUFSource:
    return GGUFSource(name, shape, lambda: iter([np.zeros(shape, np.dtype(f"u{WIDTH[precision]}"))]))


def _ones(shape: tuple[int, ...]) -> Floats:
    return np.ones(shape, np.float32)


def _stored(entry: Entry) -> NDArray[Any]:
    return np.memmap(entry.file, _NUMPY[entry.dtype], "r", entry.start, entry.shape)


def _parts(entry: Entry) -> Iterator[NDArray[Any]]:
    """The tensor's rows, as many at a time as fit in memory. The map of the file is renewed each time."""
    rows = max(1, _CHUNK // max(1, prod(entry.shape[1:])))
    for start in range(0, entry.shape[0], rows):
        yield _stored(entry)[start : start + rows]


def _cast(part: NDArray[Any], entry: Entry, precision: Precision) -> NDArray[Any]:
    """As the file stores it; float16 and float32 are rounded to the nearest bfloat16."""
    if precision == "F32":
        return _to_float(part, entry)
    if entry.dtype == "BF16":
        return part
    import gguf

    rounded: NDArray[Any] = gguf.quants.quantize(part.astype(np.float32), gguf.GGMLQuantizationType.BF16)
    return rounded


def _to_float(stored: NDArray[Any], entry: Entry) -> NDArray[np.float32]:
    if entry.dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)
