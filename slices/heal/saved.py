"""A teacher on disk: its likeliest tokens at every position, so that healing needs no parent in memory.

One safetensors file: for each row and window the ids of the top k tokens (I32) and their log probabilities
(F16). What the teacher gave the other tokens together is shared out among them as the slice itself would,
so that nothing is learned about them: the divergence is that of the k tokens and the rest as one.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.errors import BadCheckpoint, NotFound
from slices.files import atomic
from slices.files.disk_space import check_free_space, map_full_disk_error
from slices.files.safetensors_header import read_header
from slices.files.safetensors_writer import Slot, lay_out
from slices.heal.objective import CHUNK, Target
from slices.heal.states import States
from slices.heal.teacher import Teacher
from slices.heal.text import Text

_AT_ONCE = 4  # rows that the teacher reads together
_LEAST = 1e-7  # of probability, for the rest together
_NAMES = ("rows.ids", "rows.logprobs", "windows.ids", "windows.logprobs", "text")


@dataclass(frozen=True)
class Top:
    """The likeliest tokens at some positions: ids and log probabilities (positions, k)."""

    ids: Any
    logs: Any

    def logprobs(self, start: int, stop: int, given: Any) -> Any:
        """Log probabilities over the slice's vocabulary, the rest as `given` has them in proportion."""
        ids, known = self.ids[start:stop], self.logs[start:stop]
        rest = (1 - known.exp().sum(dim=1)).clamp(min=_LEAST)
        theirs = (1 - given.gather(1, ids).exp().sum(dim=1)).clamp(min=_LEAST)
        found = given + (rest.log() - theirs.log())[:, None]
        return found.scatter_(1, ids, known)

    def apart(self, states: States) -> Any:
        """Zero: hidden states are not saved."""
        return states.last.new_zeros(())


class Saved:
    """A teacher's file, held against the text it is used for."""

    def __init__(self, path: Path, text: Text, device: str) -> None:
        """Open `path`, without reading its bulk.

        Raises:
            NotFound: there is no such file.
            BadCheckpoint: it is damaged, or was saved for another text.
        """
        stored = _open(path)
        if bytes(stored["text"]).hex() != text.sha256:
            raise BadCheckpoint(
                f"{path} was saved for other text: give the same slice, --corpus, --steps, --batch, "
                "--context and --seed"
            )
        self._stored, self._device, self._width = stored, device, text.rows.shape[1]
        self._starts = np.cumsum([0, *map(len, text.windows)])

    def rows(self, numbers: NDArray[np.int64]) -> Target:
        """What was saved for rows of the text."""
        at = (numbers[:, None] * self._width + np.arange(self._width)).ravel()
        return self._target("rows", at)

    def window(self, number: int) -> Target:
        """What was saved for a held-out window."""
        return self._target("windows", np.arange(self._starts[number], self._starts[number + 1]))

    def _target(self, part: str, at: NDArray[np.int64]) -> Target:
        import torch

        ids = torch.tensor(self._stored[f"{part}.ids"][at], dtype=torch.int64, device=self._device)
        logs = torch.tensor(self._stored[f"{part}.logprobs"][at], dtype=torch.float32, device=self._device)
        return Top(ids, logs)


def save_teacher(
    teacher: Teacher,
    text: Text,
    vocabulary: int,
    k: int,
    path: Path,
    force: bool,
    told: Callable[[int, int], None],
) -> int:
    """Run `teacher` over all of `text` and keep its `k` likeliest tokens; returns the file's bytes.

    Raises:
        Exists: the file is there and `force` is false.
        SliceError: the disk has too little room; with figures.
    """
    k = min(k, vocabulary)
    atomic.refuse_existing(path, force)
    positions = {"rows": text.rows.size, "windows": sum(map(len, text.windows))}
    slots = [
        Slot(f"{part}.{name}", dtype, (count, k))
        for part, count in positions.items()
        for name, dtype in (("ids", "I32"), ("logprobs", "F16"))
    ] + [Slot("text", "U8", (32,))]
    (shard,) = lay_out(slots, shard_bytes=2**62).shards
    check_free_space(path, shard.nbytes, "a saved teacher")
    with map_full_disk_error(path), atomic.staged(path, force) as partial:
        with partial.open("wb") as file:
            file.write(shard.header)
            file.truncate(shard.nbytes)
        stored = _open(partial, writable=True)
        stored["text"][:] = np.frombuffer(bytes.fromhex(text.sha256), dtype=np.uint8)
        _fill(teacher, text, k, vocabulary, stored, told)
        for array in stored.values():
            array.flush()
    return shard.nbytes


def digest(path: Path) -> str:
    """sha256 of a teacher's file."""
    if not path.is_file():
        raise NotFound(f"{path}: there is no such file; mom heal --save-teacher writes one")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fill(
    teacher: Teacher,
    text: Text,
    k: int,
    vocabulary: int,
    stored: dict[str, Any],
    told: Callable[[int, int], None],
) -> None:
    for part, at, positions, target in _targets(teacher, text):
        for start in range(0, positions, CHUNK):
            stop = min(start + CHUNK, positions)
            top = target.logprobs(start, stop, None).topk(k, dim=1)
            stored[f"{part}.ids"][at + start : at + stop] = top.indices.cpu().numpy()
            stored[f"{part}.logprobs"][at + start : at + stop] = top.values.cpu().numpy()
        told(at + positions if part == "rows" else text.rows.size, text.rows.size)


def _targets(teacher: Teacher, text: Text) -> Iterator[tuple[str, int, int, Target]]:
    """Every part of the text: its kind, where it starts, how many positions, what is expected there."""
    width = text.rows.shape[1]
    for start in range(0, len(text.rows), _AT_ONCE):
        numbers = np.arange(start, min(start + _AT_ONCE, len(text.rows)))
        yield "rows", start * width, len(numbers) * width, teacher.rows(numbers)
    at = 0
    for number, window in enumerate(text.windows):
        yield "windows", at, len(window), teacher.window(number)
        at += len(window)


def _open(path: Path, writable: bool = False) -> dict[str, Any]:
    """The arrays of a teacher's file, mapped."""
    kinds: dict[str, Any] = {"I32": np.int32, "F16": np.float16, "U8": np.uint8}
    entries = {entry.name: entry for entry in read_header(path)[0]}
    if set(entries) != set(_NAMES) or any(entry.dtype not in kinds for entry in entries.values()):
        raise BadCheckpoint(f"{path} is no saved teacher: expected the tensors {', '.join(_NAMES)}")
    mode: Any = "r+" if writable else "r"
    return {
        name: np.memmap(path, dtype=kinds[entry.dtype], mode=mode, offset=entry.start, shape=entry.shape)
        for name, entry in entries.items()
    }
