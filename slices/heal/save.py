"""A healed slice on disk: the files of the original slice, with the trained weights overwritten.

Each weight keeps the dtype that it has in the slice (bf16 as a rule); what was not trained is copied byte for
byte. The original's quantized files are not copied, since they hold other weights.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from slices import manifest
from slices.checkpoint import open_checkpoint, weight_files
from slices.errors import BadCheckpoint
from slices.files import atomic
from slices.files.disk_space import check_free_space, map_full_disk_error
from slices.files.safetensors_header import Entry

_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
_CONFIG_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def to_stored_dtypes(folder: Path, weights: Mapping[str, Any]) -> dict[str, Any]:
    """`weights` rounded to the dtypes in which the slice in `folder` stores them.

    Raises:
        BadCheckpoint: a weight is not in the slice's files, or of another shape or an integer dtype.
    """
    import torch

    entries = {entry.name: entry for entry in open_checkpoint(folder).entries}
    rounded = {}
    for name, value in weights.items():
        entry = entries.get(name)
        if entry is None or entry.shape != tuple(value.shape) or entry.dtype not in _DTYPES:
            raise BadCheckpoint(f"{folder}: no tensor {name!r} of shape {list(value.shape)} to be healed")
        rounded[name] = value.detach().cpu().to(getattr(torch, _DTYPES[entry.dtype])).contiguous()
    return rounded


def save_healed_slice(
    source: Path,
    target: Path,
    weights: Mapping[str, Any],
    healed: manifest.Manifest,
    force: bool,
    files: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Write `target`: the slice in `source` with `weights` (of `to_stored_dtypes`), its manifest last.

    Args:
        files: further files, by their names in the target.

    Raises:
        Exists: the target is there and `force` is false.
        SliceError: the disk is too small.
    """
    weight = weight_files(source)
    check_free_space(target, sum(file.stat().st_size for file in weight), "the healed slice")
    with map_full_disk_error(target), atomic.staged(target, force) as folder:
        folder.mkdir()
        for file in [*source.glob("*.index.json"), *_config_files(source), *weight]:
            shutil.copyfile(file, folder / file.name)
        for name, file in files.items():
            shutil.copyfile(file, folder / name)
        for entry in open_checkpoint(source).entries:
            if entry.name in weights:
                _overwrite(folder / entry.file.name, entry, weights[entry.name])
        manifest.write(folder, healed)


def _config_files(source: Path) -> list[Path]:
    """Config and tokenizer files that are there, chat templates included."""
    return [file for file in source.iterdir() if file.name in _CONFIG_FILES or file.suffix == ".jinja"]


def _overwrite(file: Path, entry: Entry, value: Any) -> None:
    import torch

    array = value if value.ndim else value[None]
    data = array.view(torch.uint8).numpy().tobytes()
    if len(data) != entry.nbytes:
        raise BadCheckpoint(f"tensor {entry.name!r} has {entry.nbytes} bytes in its file, not {len(data)}")
    with file.open("r+b") as out:
        out.seek(entry.start)
        out.write(data)
