"""A slice's safetensors as a BF16 GGUF that llama.cpp runs: tensors renamed, config translated.

Streams one tensor at a time and needs no torch. What a family's parts are called there is in
`slices.dialects`. A slice that llama.cpp cannot express is refused, since it would load and answer
something else. Quantizing is in `slices.quantize`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slices.anatomy import Anatomy, match, read_anatomy
from slices.atomic import staged
from slices.checkpoint import Checkpoint, open_checkpoint
from slices.dialects.gemma3 import GEMMA3
from slices.dialects.table import Dialect, Floats
from slices.errors import BadCheckpoint, MissingExtra, Unsupported
from slices.gguf_tokenizer import read_tokenizer, write_tokenizer
from slices.headers import Entry

if TYPE_CHECKING:
    import gguf

_BF16_FILE = 32  # llama.cpp's LLAMA_FTYPE_MOSTLY_BF16
_NUMPY = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}
DIALECTS: Mapping[str, Dialect] = {"gemma3": GEMMA3}


def export(folder: Path, out: Path, force: bool = False, name: str | None = None) -> Path:
    """Write the checkpoint in `folder` to the BF16 GGUF `out`; matrices as they are, norms as F32.

    Raises:
        NotFound, BadCheckpoint: the checkpoint is missing or damaged.
        Unsupported: llama.cpp cannot express it.
        Exists: `out` is there and `force` is false.
        MissingExtra: gguf is not installed.
    """
    with staged(out, force) as partial:
        write_gguf(folder, partial, name)
    return out


def write_gguf(folder: Path, path: Path, name: str | None = None) -> None:
    """`export` straight to `path`, left half-written if it fails: for files that are temporary anyway."""
    checkpoint = open_checkpoint(str(folder))
    anatomy = read_anatomy(checkpoint.config)
    dialect = _dialect(anatomy)
    entries, _ = match(checkpoint, anatomy)
    writer = _open_writer(path, dialect.arch)
    try:
        _describe(writer, checkpoint, anatomy, dialect, name or folder.resolve().name)
        _write_tensors(writer, list(_planned(entries, anatomy, dialect)), anatomy, dialect)
    finally:
        writer.close()


def gguf_names(anatomy: Anatomy) -> dict[str, str]:
    """What every tensor that the model may have is called in its GGUF, by its name without prefix.

    Raises:
        Unsupported: llama.cpp cannot express the model.
    """
    names: dict[str, str] = {}
    for here, there in _dialect(anatomy).names.items():
        for index in range(len(anatomy.layers) if "{}" in here else 1):
            names[here.format(index)] = there.format(index)
    return names


def _dialect(anatomy: Anatomy) -> Dialect:
    dialect = DIALECTS.get(anatomy.family.name)
    if dialect is None:
        raise Unsupported(
            f"exporting {anatomy.model_type} to GGUF is not built yet (only {', '.join(DIALECTS)}); "
            "serve this slice in torch"
        )
    return dialect


def _open_writer(path: Path, arch: str) -> "gguf.GGUFWriter":
    try:
        import gguf
    except ImportError:
        raise MissingExtra("gguf", "quantize") from None
    return gguf.GGUFWriter(path, arch)


def _describe(
    writer: "gguf.GGUFWriter", checkpoint: Checkpoint, anatomy: Anatomy, dialect: Dialect, name: str
) -> None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(_BF16_FILE)
    writer.add_quantization_version(2)
    dialect.describe(writer, anatomy)
    config = {**checkpoint.config, **anatomy.config}
    write_tokenizer(writer, read_tokenizer(checkpoint.folder, config, anatomy.shape.vocab))


def _planned(
    entries: Mapping[str, Entry], anatomy: Anatomy, dialect: Dialect
) -> Iterator[tuple[str, str, Entry]]:
    """Every tensor to write, as its name there, its name here, and where it lies."""
    names = gguf_names(anatomy)
    unnamed = entries.keys() - names.keys()
    if unnamed:
        raise BadCheckpoint(f"tensor {min(unnamed)!r} has no name in a {dialect.arch} GGUF")
    for here, there in names.items():
        if here in entries:
            yield there, here, entries[here]


def _write_tensors(
    writer: "gguf.GGUFWriter", planned: list[tuple[str, str, Entry]], anatomy: Anatomy, dialect: Dialect
) -> None:
    import gguf

    for target, _, entry in planned:
        matrix = len(entry.shape) > 1
        kind = gguf.GGMLQuantizationType.BF16 if matrix else gguf.GGMLQuantizationType.F32
        nbytes = entry.parameters * (2 if matrix else 4)
        writer.add_tensor_info(target, entry.shape, np.dtype(np.float32), nbytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, name, entry in planned:
        stored = _stored(entry)
        if len(entry.shape) > 1:
            writer.write_tensor_data(_to_bf16(stored, entry))
        else:
            writer.write_tensor_data(dialect.adjust(name, _to_float(stored, entry), anatomy))


def _stored(entry: Entry) -> NDArray[Any]:
    if entry.dtype not in _NUMPY:
        raise Unsupported(
            f"{entry.file.name}: tensor {entry.name!r} is {entry.dtype}; expected BF16, F16 or F32"
        )
    return np.memmap(entry.file, _NUMPY[entry.dtype], "r", entry.start, entry.shape)


def _to_float(stored: NDArray[Any], entry: Entry) -> Floats:
    if entry.dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def _to_bf16(stored: NDArray[Any], entry: Entry) -> NDArray[Any]:
    """Raw bf16 values as uint16; float16 and float32 are rounded to the nearest."""
    if entry.dtype == "BF16":
        return stored
    import gguf

    return gguf.quants.quantize(stored.astype(np.float32), gguf.GGMLQuantizationType.BF16)  # type: ignore[no-any-return]
