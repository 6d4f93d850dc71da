"""The weights that a healed slice had before healing: of the slice that was healed, else of the parent."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slices import manifest
from slices.architecture.anatomy import match_tensors, read_anatomy
from slices.checkpoint import Checkpoint, fingerprint, open_checkpoint
from slices.cut.identity_layers import build_slice_layers
from slices.errors import NotFound, SliceError
from slices.files.safetensors_header import Entry
from slices.model_ref import open_model


@dataclass(frozen=True)
class UnhealedWeights:
    """Headers of a healed slice's tensors before healing, by their name in the slice without prefix.

    `source` says where they lie: in the slice that was healed, or in the parent. The parent has none of an
    identity layer, and those of a cut FFN or vocabulary are left out: it does not say which rows were kept.
    """

    source: Literal["slice", "parent"]
    entries: Mapping[str, Entry]


def unhealed_weights(folder: Path) -> UnhealedWeights:
    """Find the weights before healing of the healed slice in `folder`.

    Raises:
        NotFound: the slice that was healed is gone or changed, and so is the parent.
    """
    entry = manifest.read(folder)
    healing = entry.healing or {}
    source = _unchanged_slice(healing)
    if source is not None:
        return UnhealedWeights("slice", _entries(source))
    try:
        parent = open_model(entry.parent.model)
    except SliceError as error:
        raise NotFound(f"the slice that was healed is gone or changed, and its parent too: {error}") from None
    if parent.headers_sha256 != entry.parent.headers_sha256:
        raise NotFound(f"the slice that was healed is gone or changed, and {entry.parent.model} is another")
    return UnhealedWeights("parent", _of_parent(folder, entry, parent))


def _unchanged_slice(healing: Mapping[str, object]) -> Checkpoint | None:
    """The slice that was healed, None where it is no longer what it was."""
    folder = healing.get("slice_folder")  # None: the cut of a search, which is deleted
    if not isinstance(folder, str) or not (Path(folder) / manifest.FILE).is_file():
        return None
    try:
        found = open_checkpoint(Path(folder))
    except SliceError:
        return None
    return found if fingerprint(found) == healing.get("slice_fingerprint") else None


def _entries(checkpoint: Checkpoint) -> dict[str, Entry]:
    return match_tensors(checkpoint, read_anatomy(checkpoint.config))[0]


def _of_parent(folder: Path, entry: manifest.Manifest, parent: Checkpoint) -> dict[str, Entry]:
    """The parent's tensors that are whole in the slice, by their name there."""
    own, theirs = _entries(open_checkpoint(folder)), _entries(parent)
    anatomy = read_anatomy(open_checkpoint(folder).config)
    layers = build_slice_layers(read_anatomy(parent.config), entry.layers, bool(entry.recipe.get("portable")))
    found = {}
    for name, spec in anatomy.tensors.items():
        origin = name if spec.layer is None else None
        if spec.layer is not None and layers[spec.layer.index].parent is not None:
            origin = spec.rule.name.format(layers[spec.layer.index].parent)
        if name in own and origin in theirs and theirs[origin].shape == own[name].shape:
            found[name] = theirs[origin]
    return found
