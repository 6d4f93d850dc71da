"""A slice's safetensors as a BF16 GGUF that llama.cpp runs: tensors renamed, config translated.

Streams a chunk at a time and needs no torch. The names of a family's parts there, and the identity
layers that stock llama.cpp needs, are in `slices.dialects`; what each tensor holds is in
`slices.gguf.tensors`. A slice that llama.cpp cannot express is refused, since it would load and answer
something else. Quantizing is in `slices.quant.quantize`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slices import manifest
from slices.architecture.anatomy import Anatomy, match_tensors, read_anatomy
from slices.checkpoint import Checkpoint, open_checkpoint
from slices.dialects.gemma3 import GEMMA3
from slices.dialects.gemma4 import GEMMA4
from slices.dialects.table import Blocks, Dialect
from slices.errors import MissingExtra, NotFound, Unsupported
from slices.files.atomic import staged
from slices.gguf.pad_rows import HIDDEN_SIZE, pad_sources, padded_anatomy
from slices.gguf.tensors import GGUFSource, Precision, list_sources, name_tensors
from slices.gguf.tokenizer import read_tokenizer, write_tokenizer

if TYPE_CHECKING:
    import gguf

_FILE_TYPE: Mapping[Precision, int] = {"BF16": 32, "F32": 0}  # llama.cpp's numbers of such files
_ALIGNMENT = 32  # bytes: GGUF's default
DIALECTS: Mapping[str, Dialect] = {"gemma3": GEMMA3, "gemma4": GEMMA4}


@dataclass(frozen=True)
class _Model:
    checkpoint: Checkpoint
    anatomy: Anatomy
    dialect: Dialect
    blocks: Blocks
    padded: Anatomy | None = None  # with the hidden size of the GGUF, where its rows are padded


def export(
    folder: Path, out: Path, force: bool = False, name: str | None = None, precision: Precision = "BF16"
) -> Path:
    """Write the checkpoint in `folder` to the GGUF `out`: matrices in `precision`, vectors as float32.

    Raises:
        NotFound, BadCheckpoint: the checkpoint is missing or damaged.
        Unsupported: llama.cpp cannot express it.
        Exists: `out` is there and `force` is false.
        MissingExtra: gguf is not installed.
    """
    with staged(out, force) as partial:
        write_gguf(folder, partial, name, precision)
    return out


def write_gguf(
    folder: Path,
    path: Path,
    name: str | None = None,
    precision: Precision = "BF16",
    data: bool = True,
    pad_rows: bool = False,
) -> None:
    """`export` straight to `path`, left half-written if it fails: for files that are temporary anyway.

    Args:
        data: False leaves a hole where the weights go, so that only the headers take space on the disk.
        pad_rows: pad hidden states to a multiple of 256 (`slices.gguf.pad_rows`).

    Raises:
        Unsupported: there is nothing to pad, or the family cannot be.
    """
    model = _open(folder)
    if not model.checkpoint.entries:
        raise NotFound(f"{folder} has no weights to export")
    entries, _ = match_tensors(model.checkpoint, model.anatomy)
    sources = list_sources(entries, model.anatomy, model.dialect, model.blocks, precision)
    if pad_rows:
        sources = pad_sources(sources, model.anatomy, model.dialect, model.blocks)
        model = replace(model, padded=padded_anatomy(model.anatomy, model.dialect))
    _write_header(path, model, name or folder.resolve().name, sources, precision, hashed=data)
    _write_data(path, sources, precision, data)


def gguf_names(anatomy: Anatomy) -> dict[str, str]:
    """What every tensor that the model may have is called in its GGUF, by its name without prefix.

    Raises:
        Unsupported: llama.cpp cannot express the model.
    """
    dialect = _dialect(anatomy)
    return name_tensors(anatomy, dialect, dialect.arrange(anatomy))


def _open(folder: Path) -> _Model:
    checkpoint = open_checkpoint(folder)
    anatomy = read_anatomy(checkpoint.config)
    dialect = _dialect(anatomy)
    return _Model(checkpoint=checkpoint, anatomy=anatomy, dialect=dialect, blocks=dialect.arrange(anatomy))


def _dialect(anatomy: Anatomy) -> Dialect:
    dialect = DIALECTS.get(anatomy.family.name)
    if dialect is None:
        raise Unsupported(
            f"{anatomy.model_type} cannot be exported to GGUF (only {', '.join(DIALECTS)} can); "
            "serve this slice in torch"
        )
    if anatomy.windowed:
        raise Unsupported(
            f"layers {anatomy.windowed}: full attention limited to the sliding window with its own rotary "
            "theta cannot be written to a GGUF, where a layer has both of the sliding layers or neither; "
            "serve this slice in torch, or cut a Gemma 3 with --rope-theta local"
        )
    return dialect


def _write_header(
    path: Path, model: _Model, name: str, sources: Sequence[GGUFSource], precision: Precision, hashed: bool
) -> None:
    try:
        import gguf
    except ImportError:
        raise MissingExtra("gguf", "quantize") from None
    writer = gguf.GGUFWriter(path, model.dialect.arch)
    try:
        _describe(writer, model, name, precision)
        _add_origin(writer, model, hashed)
        for source in sources:
            kind = gguf.GGMLQuantizationType[precision if source.matrix else "F32"]
            writer.add_tensor_info(
                source.name, source.shape, np.dtype(np.float32), source.nbytes(precision), raw_dtype=kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _describe(writer: "gguf.GGUFWriter", model: _Model, name: str, precision: Precision) -> None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPE[precision])
    writer.add_quantization_version(2)
    model.dialect.describe(writer, model.padded or model.anatomy, model.blocks)
    if model.padded:
        writer.add_uint32(HIDDEN_SIZE, model.anatomy.dims.hidden)
    config = {**model.checkpoint.config, **model.anatomy.config}
    tokenizer = read_tokenizer(
        model.checkpoint.folder, config, model.anatomy.dims.vocab, model.dialect.writes_merges
    )
    write_tokenizer(writer, tokenizer)


def _add_origin(writer: "gguf.GGUFWriter", model: _Model, hashed: bool) -> None:
    """Add the provenance: sha256 of the weights, recipe of the slice, indices of the identity layers.

    The seconds that the cut took are left out: the same slice is the same file.
    Without `hashed` the digest is a stand-in of the same length, so that the header's size is the same.
    """
    folder = model.checkpoint.folder
    writer.add_string("mom.weights_sha256", _digest(model.checkpoint) if hashed else "0" * 64)
    identity_layers = [index for index, block in enumerate(model.blocks) if block.source is None]
    if identity_layers:
        writer.add_array("mom.identity_layers", identity_layers)
    if (folder / manifest.FILE).is_file():
        made = manifest.read(folder)
        writer.add_string("mom.domain", made.domain)
        writer.add_string("mom.parent_headers_sha256", made.parent.headers_sha256)
        recipe = {key: value for key, value in made.recipe.items() if key != "seconds"}
        writer.add_string("mom.recipe", json.dumps(recipe, sort_keys=True, ensure_ascii=False))


def _digest(checkpoint: Checkpoint) -> str:
    """sha256 of every tensor's name, dtype, shape and bytes, in the order of names: shards do not matter."""
    digest = hashlib.sha256()
    for entry in sorted(checkpoint.entries, key=lambda each: each.name):
        digest.update(f"{entry.name} {entry.dtype} {list(entry.shape)}\n".encode())
        with entry.file.open("rb") as file:
            file.seek(entry.start)
            left = entry.nbytes
            while left and (block := file.read(min(left, 2**24))):
                digest.update(block)
                left -= len(block)
    return digest.hexdigest()


def _write_data(path: Path, sources: Sequence[GGUFSource], precision: Precision, data: bool) -> None:
    with path.open("r+b") as file:
        position = file.seek(0, 2)
        for source in sources:
            position = -(-position // _ALIGNMENT) * _ALIGNMENT
            if data:
                file.seek(position)
                for chunk in source.chunks():
                    file.write(np.ascontiguousarray(chunk).data)
                _check_length(source, file.tell() - position, source.nbytes(precision))
            position += source.nbytes(precision)
        file.truncate(-(-position // _ALIGNMENT) * _ALIGNMENT)


def _check_length(source: GGUFSource, written: int, expected: int) -> None:
    if written != expected:
        raise AssertionError(f"tensor {source.name!r}: {written} bytes were written, {expected} announced")
