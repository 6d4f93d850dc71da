"""References on disk: comparing the tenth model with its parent costs a run of that model alone.

One safetensors file for each reference, token windows and vocabulary under `$MOM_HOME/references`; it holds
one or two `SampledDistribution`s, 2 kB a token at most. A damaged file is computed again.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from slices.errors import BadCheckpoint
from slices.files import atomic
from slices.files.disk_space import check_free_space, map_full_disk_error
from slices.files.safetensors_header import read_header
from slices.home import home
from slices.measure.heldout import Heldout
from slices.measure.reference import (
    PER_POSITION,
    Distributions,
    Reference,
    compute_distributions,
    make_reference,
)
from slices.measure.sampled_distribution import SAMPLED, TOP, SampledDistribution
from slices.measure.token_map import TokenMap
from slices.measure.tokenized import TokenWindow
from slices.progress import Progress
from slices.runtime import Runtime
from slices.versions import runtime_versions

VERSION = 3
_FIELDS = (*PER_POSITION, "top_count", "unused_columns", "vocabulary")
_FIRST_PIECE = ("token_ids", "log_probs")  # fields of its own, stored with the prefix "first_piece."


def cached_reference(
    name: str,
    identity: str,
    open_runtime: Callable[[], Runtime],
    text: Heldout,
    windows: Sequence[TokenWindow],
    token_map: TokenMap | None = None,
    progress: Progress | None = None,
) -> Reference:
    """Read a reference's distributions from disk, or run it once, as `compute_reference` does.

    Args:
        identity: of the reference's weights.
        open_runtime: loads the reference; not called where its distributions are on disk.
        windows, token_map: as for `compute_reference`.

    Raises:
        RunFailed: the reference gives no finite probability, or the disk is full.
        SliceError: the disk has too little room.
    """
    windows = tuple(windows)
    path = reference_file(identity, windows, token_map)
    positions = sum(each.scored for each in windows)
    found = _read(path, positions)
    if found is None:
        room = positions * 8 * (TOP + SAMPLED + 2)
        check_free_space(path, room if token_map is None else 2 * room, "the reference's distributions")
        found = compute_distributions(name, open_runtime(), windows, token_map, progress)
        _write(path, found)
    return make_reference(name, text, windows, token_map, found)


def reference_file(identity: str, windows: Sequence[TokenWindow], token_map: TokenMap | None) -> Path:
    """The file of a reference's distributions."""
    digest = hashlib.sha256(json.dumps([VERSION, TOP, SAMPLED, identity, runtime_versions()]).encode())
    for each in windows:
        digest.update(np.array([each.first_scored, *each.tokens, -1], np.int64).tobytes())
    if token_map is not None:
        digest.update(token_map.ids.tobytes() + token_map.first_pieces.tobytes())
    return home() / "references" / f"{digest.hexdigest()[:32]}.safetensors"


def _write(path: Path, found: Distributions) -> None:
    from safetensors.numpy import save

    arrays = {**vars(found.kept), "vocabulary": np.array([found.vocabulary], np.int64)}
    if found.first_piece is not None:
        arrays |= {_prefixed(field): getattr(found.first_piece, field) for field in _FIRST_PIECE}
    data = save({field: np.ascontiguousarray(array) for field, array in arrays.items()})
    with map_full_disk_error(path), atomic.staged(path, force=True) as partial:
        partial.write_bytes(data)


def _read(path: Path, positions: int) -> Distributions | None:
    """The distributions in a file; None where it is absent or damaged."""
    from safetensors.numpy import load_file

    if not path.is_file():
        return None
    try:
        shapes = {entry.name: entry.shape for entry in read_header(path)[0]}
        own = set(shapes) - {*map(_prefixed, _FIRST_PIECE)}
        if own != set(_FIELDS) or shapes["target_log_probs"] != (positions,):
            return None
        arrays = load_file(path)
    except (BadCheckpoint, ValueError):
        return None
    kept = SampledDistribution(**{field: arrays[field] for field in _FIELDS if field != "vocabulary"})
    first_piece = None
    if len(own) < len(shapes):
        first_piece = replace(kept, **{field: arrays[_prefixed(field)] for field in _FIRST_PIECE})
    return Distributions(kept, first_piece, int(arrays["vocabulary"][0]))


def _prefixed(field: str) -> str:
    return f"first_piece.{field}"
