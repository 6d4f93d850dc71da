"""What references expect of texts, on disk: holding the tenth slice against its parent costs one slice.

One safetensors file for each reference, its tokens and the columns that count, under `$MOM_HOME/teachers`. It
holds `slices.measure.expected.Expected`, 1 kB a token at most. Made anew where it is missing.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slices.errors import BadCheckpoint, RunFailed
from slices.files import atomic
from slices.files.disk_space import check_free_space, map_full_disk_error
from slices.files.safetensors_header import read_header
from slices.home import home
from slices.measure.expected import SAMPLED, TOP, Expected, Floats, expect
from slices.measure.reading import Passage
from slices.measure.reference import restricted
from slices.runtime import Runtime

VERSION = 1
Progress = Callable[[str, int, int], None]  # what is read, windows done, windows in all
_BY_POSITION = ("ids", "logs", "scored", "lost")
_FIELDS = (*_BY_POSITION, "head", "void")


def expectations(
    name: str,
    identity: str,
    opened: Callable[[], Runtime],
    passages: Sequence[Passage],
    ids: NDArray[np.int64] | None,
    progress: Progress | None = None,
) -> Expected:
    """What a reference expects at every scored position, from disk or by running it once.

    Args:
        identity: of the reference's weights.
        opened: gives the reference loaded; not called where the answer is kept.
        passages: in the reference's ids.
        ids: the reference's id of each column that counts, -1 for none; None where they are the same.

    Raises:
        RunFailed: the reference gives no finite probability, or the disk is full.
    """
    path = teacher_file(identity, passages, ids)
    if path.is_file():
        try:
            return _read(path, sum(each.scored for each in passages))
        except (BadCheckpoint, ValueError):
            path.unlink()  # it can be made again
    positions = sum(each.scored for each in passages)
    check_free_space(path, positions * 8 * (TOP + SAMPLED + 2), "what the reference expects")
    found = _run(name, opened(), passages, ids, progress)
    _write(path, found)
    return found


def teacher_file(identity: str, passages: Sequence[Passage], ids: NDArray[np.int64] | None) -> Path:
    """Where it is kept."""
    digest = hashlib.sha256(json.dumps([VERSION, TOP, SAMPLED, identity]).encode())
    for each in passages:
        digest.update(np.array([each.first, *each.tokens, -1], np.int64).tobytes())
    digest.update(b"all" if ids is None else ids.tobytes())
    return home() / "teachers" / f"{digest.hexdigest()[:32]}.safetensors"


def scored_chunks(
    name: str, runtime: Runtime, passages: Sequence[Passage], progress: Progress | None = None
) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Every scored position in order, a few at a time: the tokens that came and their distributions.

    Raises:
        RunFailed: the runtime is short of positions, or its probabilities are no numbers.
    """
    for number, passage in enumerate(passages, start=1):
        came, at = np.array(passage.tokens[1:], dtype=np.int64), 0
        for chunk in runtime.distributions(passage.tokens):
            start = max(0, passage.first - 1 - at)
            here, rows = came[at + start : at + len(chunk)], chunk[start:]
            at += len(chunk)
            if not len(rows):
                continue
            if not np.isfinite(rows.max(axis=1)).all() or not np.isfinite(rows[range(len(here)), here]).all():
                raise RunFailed(f"{name} gave no finite probability to every token of window {number}")
            yield here, rows
        if at != len(came):
            raise RunFailed(f"{name} gave {at} distributions for the {len(came)} tokens of window {number}")
        if progress:
            progress(name, number, len(passages))


def _run(
    name: str,
    runtime: Runtime,
    passages: Sequence[Passage],
    ids: NDArray[np.int64] | None,
    progress: Progress | None,
) -> Expected:
    void = np.flatnonzero(ids < 0).astype(np.int32) if ids is not None else np.empty(0, np.int32)
    parts = []
    for number, (came, rows) in enumerate(scored_chunks(name, runtime, passages, progress)):
        scored = rows[np.arange(len(rows)), came]
        part, lost = (rows, np.zeros(len(rows))) if ids is None else restricted(rows, ids)
        parts.append(expect(part, lost.astype(np.float32), scored, void, seed=number))
    joined = {key: np.concatenate([getattr(part, key) for part in parts]) for key in _BY_POSITION}
    return Expected(head=parts[0].head, void=void, **joined)


def _write(path: Path, found: Expected) -> None:
    from safetensors.numpy import save

    data = save({key: np.ascontiguousarray(getattr(found, key)) for key in _FIELDS})
    with map_full_disk_error(path), atomic.staged(path, force=True) as partial:
        partial.write_bytes(data)


def _read(path: Path, positions: int) -> Expected:
    """What a file holds.

    Raises:
        BadCheckpoint, ValueError: it is damaged.
    """
    from safetensors.numpy import load_file

    entries = {entry.name: entry.shape for entry in read_header(path)[0]}
    if set(entries) != set(_FIELDS) or entries["scored"] != (positions,):
        raise BadCheckpoint(f"{path} does not hold what it should")
    return Expected(**load_file(path))
