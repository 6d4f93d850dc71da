"""References on disk: comparing the tenth model with its parent costs a run of that model alone.

One safetensors file for each reference, token windows and vocabulary under `$MOM_HOME/references`; it holds a
`SampledDistribution`, 1 kB a token at most. A damaged file is computed again.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slices.errors import BadCheckpoint
from slices.files import atomic
from slices.files.disk_space import check_free_space, map_full_disk_error
from slices.files.safetensors_header import read_header
from slices.home import home
from slices.measure.heldout import Heldout
from slices.measure.reference import PER_POSITION, Reference, compute_distribution
from slices.measure.sampled_distribution import SAMPLED, TOP, SampledDistribution
from slices.measure.tokenized import TokenWindow
from slices.progress import Progress
from slices.runtime import Runtime

VERSION = 2
_FIELDS = (*PER_POSITION, "top_count", "unused_columns", "vocabulary")


def cached_reference(
    name: str,
    identity: str,
    open_runtime: Callable[[], Runtime],
    text: Heldout,
    windows: Sequence[TokenWindow],
    ids: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> Reference:
    """Read a reference's distributions from disk, or run it once, as `compute_reference` does.

    Args:
        identity: of the reference's weights.
        open_runtime: loads the reference; not called where its distributions are on disk.
        windows, ids: as for `compute_reference`.

    Raises:
        RunFailed: the reference gives no finite probability, or the disk is full.
        SliceError: the disk has too little room.
    """
    windows = tuple(windows)
    path = reference_file(identity, windows, ids)
    positions = sum(each.scored for each in windows)
    stored = _read(path, positions)
    if stored is None:
        check_free_space(path, positions * 8 * (TOP + SAMPLED + 2), "the reference's distributions")
        stored = compute_distribution(name, open_runtime(), windows, ids, progress)
        _write(path, *stored)
    distribution, vocabulary = stored
    return Reference(
        name=name,
        text=text,
        windows=windows,
        vocabulary=vocabulary,
        restricted=ids is not None,
        distribution=distribution,
    )


def reference_file(identity: str, windows: Sequence[TokenWindow], ids: NDArray[np.int64] | None) -> Path:
    """The file of a reference's distributions."""
    digest = hashlib.sha256(json.dumps([VERSION, TOP, SAMPLED, identity]).encode())
    for each in windows:
        digest.update(np.array([each.first_scored, *each.tokens, -1], np.int64).tobytes())
    digest.update(b"all" if ids is None else ids.tobytes())
    return home() / "references" / f"{digest.hexdigest()[:32]}.safetensors"


def _write(path: Path, distribution: SampledDistribution, vocabulary: int) -> None:
    from safetensors.numpy import save

    arrays = {**vars(distribution), "vocabulary": np.array([vocabulary], np.int64)}
    data = save({field: np.ascontiguousarray(arrays[field]) for field in _FIELDS})
    with map_full_disk_error(path), atomic.staged(path, force=True) as partial:
        partial.write_bytes(data)


def _read(path: Path, positions: int) -> tuple[SampledDistribution, int] | None:
    """The distributions in a file and the size of their vocabulary; None where it is absent or damaged."""
    from safetensors.numpy import load_file

    if not path.is_file():
        return None
    try:
        shapes = {entry.name: entry.shape for entry in read_header(path)[0]}
        if set(shapes) != set(_FIELDS) or shapes["target_log_probs"] != (positions,):
            return None
        arrays = load_file(path)
    except (BadCheckpoint, ValueError):
        return None
    vocabulary = int(arrays.pop("vocabulary")[0])
    return SampledDistribution(**arrays), vocabulary
