"""A checkpoint on disk: its config and the headers of its weights. No tensor is read here."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slices.errors import BadCheckpoint, NotFound
from slices.files.safetensors_header import Entry, parse_json_object, read_header

INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"\w[\w.-]{0,199}\.safetensors", re.ASCII)
_SAMPLE = 64  # bytes of each tensor, to tell apart checkpoints with equal headers


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's config and tensor headers. `entries` is empty without weights."""

    reference: str
    folder: Path
    config: Mapping[str, Any]
    entries: tuple[Entry, ...]
    headers_sha256: str

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.nbytes for entry in self.entries)


def open_checkpoint(path: Path, reference: str | None = None) -> Checkpoint:
    """Read the config and every header of a checkpoint folder; a lone config.json gives one without weights.

    Args:
        path: the folder, or its config.json.
        reference: the user's name for it, for messages; default the path.

    Raises:
        NotFound: there is no config.json.
        BadCheckpoint: a file is truncated, has an invalid header, or leads out of its folder.
    """
    reference = reference or str(path)
    folder, config_file = (path, path / "config.json") if path.is_dir() else (path.parent, path)
    if not config_file.is_file():
        raise NotFound(f"no model {reference!r}: {folder} has no config.json")
    config = parse_json_object(config_file.read_bytes(), config_file)
    files = weight_files(folder) if path.is_dir() else []
    entries: list[Entry] = []
    digest = hashlib.sha256()
    for file in files:
        found, header_digest = read_header(file)
        entries += found
        digest.update(header_digest.encode())
    _check_unique(entries)
    return Checkpoint(
        reference=reference,
        folder=folder,
        config=config,
        entries=tuple(entries),
        headers_sha256=digest.hexdigest(),
    )


def fingerprint(checkpoint: Checkpoint) -> str:
    """Digest of the headers and of a sample of every tensor, since a tuned model has its base's headers."""
    digest = hashlib.sha256(checkpoint.headers_sha256.encode())
    for entry in checkpoint.entries:
        with entry.file.open("rb") as file:
            file.seek(entry.start + entry.nbytes // 2)
            digest.update(file.read(min(_SAMPLE, entry.nbytes - entry.nbytes // 2)))
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights, by name: those of the index, else the single file.

    Raises:
        BadCheckpoint: the index names a file that is missing or not a bare name.
    """
    index = folder / INDEX
    if not index.is_file():
        single = folder / "model.safetensors"
        return [single] if single.is_file() else []
    names = parse_json_object(index.read_bytes(), index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise BadCheckpoint(f"{index}: expected a 'weight_map' from tensor names to file names")
    files = sorted(set(names.values()))
    for name in files:
        if not _SHARD.fullmatch(name):
            raise BadCheckpoint(f"{index}: the shard name {name[:80]!r} is not a bare .safetensors file name")
        if not (folder / name).is_file():
            raise BadCheckpoint(f"{index}: the shard {name} is missing from {folder}")
    return [folder / name for name in files]


def read_optional_json(path: Path) -> dict[str, Any]:
    """The object of a checkpoint's JSON file that may be absent, then {}.

    Raises:
        BadCheckpoint: it is not a JSON object.
    """
    return parse_json_object(path.read_bytes(), path) if path.is_file() else {}


def _check_unique(entries: list[Entry]) -> None:
    seen: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in seen:
            files = f"{seen[entry.name].file.name} and {entry.file.name}"
            raise BadCheckpoint(f"tensor {entry.name!r} is in two files: {files}")
        seen[entry.name] = entry
