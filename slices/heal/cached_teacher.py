"""Cached teacher logits: the parent's top-k tokens at every position, for healing with no parent in memory.

One safetensors file: for each row and window the ids of the top k tokens (I32) and their log probabilities
(F16). The probability of all other tokens together is distributed among them as the student distributes it,
so they get no gradient: the KL is that of the k tokens and one class for the rest. The file says what became
of the parent's tokens that the slice lacks (`slices.heal.settings.LostTokens`), and serves no other runs.
"""

import hashlib
from collections.abc import Iterator
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
from slices.heal.hidden_states import HiddenStates
from slices.heal.objective import CHUNK, TeacherOutput
from slices.heal.settings import LostTokens
from slices.heal.teacher import Teacher
from slices.heal.text import HealText
from slices.progress import Progress

_ROWS_PER_BATCH = 4
_MIN_REST = 1e-7  # probability of all tokens outside the top k, at least
_TENSORS = ("rows.ids", "rows.logprobs", "windows.ids", "windows.logprobs", "text", "lost_tokens")


@dataclass(frozen=True)
class TopKOutput:
    """The top-k tokens at some positions: `ids` and `top_logprobs`, both (positions, k)."""

    ids: Any
    top_logprobs: Any

    def logprobs(self, start: int, stop: int, student_logprobs: Any) -> Any:
        """Log probabilities over the slice's vocabulary; outside the top k the student's, rescaled."""
        ids, known = self.ids[start:stop], self.top_logprobs[start:stop]
        rest = (1 - known.exp().sum(dim=1)).clamp(min=_MIN_REST)
        student_rest = (1 - student_logprobs.gather(1, ids).exp().sum(dim=1)).clamp(min=_MIN_REST)
        rescaled = student_logprobs + (rest.log() - student_rest.log())[:, None]
        return rescaled.scatter_(1, ids, known)

    def hidden_state_loss(self, states: HiddenStates) -> Any:
        """Zero: hidden states are not cached."""
        return states.last.new_zeros(())


class CachedTeacher:
    """A teacher that reads its outputs from a file of `save_teacher`."""

    def __init__(self, path: Path, text: HealText, device: str, lost_tokens: LostTokens) -> None:
        """Map the file `path`.

        Raises:
            NotFound: there is no such file.
            BadCheckpoint: it is damaged, or was saved for another text or other `lost_tokens`.
        """
        stored = _open(path)
        if bytes(stored["text"]).hex() != text.sha256:
            raise BadCheckpoint(
                f"{path} was saved for other text: give the same slice, --corpus, --steps, --batch, "
                "--row-tokens and --seed"
            )
        saved = list(LostTokens)[int(stored["lost_tokens"][0]) % len(LostTokens)]
        if saved != lost_tokens:
            raise BadCheckpoint(
                f"{path} was saved with --lost-tokens {saved}, but this run has {lost_tokens}: give the same"
            )
        self._stored, self._device, self._width = stored, device, text.rows.shape[1]
        self._starts = np.cumsum([0, *map(len, text.windows)])

    def rows(self, indices: NDArray[np.int64]) -> TeacherOutput:
        """The cached output for rows of the text."""
        positions = (indices[:, None] * self._width + np.arange(self._width)).ravel()
        return self._output("rows", positions)

    def window(self, index: int) -> TeacherOutput:
        """The cached output for a held-out window."""
        return self._output("windows", np.arange(self._starts[index], self._starts[index + 1]))

    def _output(self, part: str, positions: NDArray[np.int64]) -> TeacherOutput:
        import torch

        ids, logprobs = self._stored[f"{part}.ids"], self._stored[f"{part}.logprobs"]
        return TopKOutput(
            torch.tensor(ids[positions], dtype=torch.int64, device=self._device),
            torch.tensor(logprobs[positions], dtype=torch.float32, device=self._device),
        )


def save_teacher(
    teacher: Teacher,
    lost_tokens: LostTokens,
    text: HealText,
    vocabulary: int,
    k: int,
    path: Path,
    force: bool,
    progress: Progress,
) -> int:
    """Run `teacher` over all of `text` and write its `k` most probable tokens; returns the file's bytes.

    Raises:
        Exists: the file is there and `force` is false.
        SliceError: the disk has too little room; with figures.
    """
    k = min(k, vocabulary)
    atomic.refuse_existing(path, force)
    (shard,) = lay_out(_slots(text, k), shard_bytes=2**62).shards
    check_free_space(path, shard.nbytes, "a cached teacher")
    with map_full_disk_error(path), atomic.staged(path, force) as partial:
        with partial.open("wb") as file:
            file.write(shard.header)
            file.truncate(shard.nbytes)
        stored = _open(partial, writable=True)
        stored["text"][:] = np.frombuffer(bytes.fromhex(text.sha256), dtype=np.uint8)
        stored["lost_tokens"][:] = list(LostTokens).index(lost_tokens)
        _fill(teacher, text, k, stored, progress)
        for array in stored.values():
            array.flush()
    return shard.nbytes


def file_sha256(path: Path) -> str:
    """The sha256 of a cached teacher's file.

    Raises:
        NotFound: there is no such file.
    """
    if not path.is_file():
        raise NotFound(f"{path}: there is no such file; mom heal --save-teacher writes one")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _slots(text: HealText, k: int) -> list[Slot]:
    """The file's tensors."""
    positions = {"rows": text.rows.size, "windows": sum(map(len, text.windows))}
    tensors = [
        Slot(f"{part}.{name}", dtype, (count, k))
        for part, count in positions.items()
        for name, dtype in (("ids", "I32"), ("logprobs", "F16"))
    ]
    return [*tensors, Slot("text", "U8", (32,)), Slot("lost_tokens", "U8", (1,))]


def _fill(teacher: Teacher, text: HealText, k: int, stored: dict[str, Any], progress: Progress) -> None:
    total = text.rows.size
    for part, offset, positions, output in _outputs(teacher, text):
        for start in range(0, positions, CHUNK):
            stop = min(start + CHUNK, positions)
            top = output.logprobs(start, stop, None).topk(k, dim=1)
            stored[f"{part}.ids"][offset + start : offset + stop] = top.indices.cpu().numpy()
            stored[f"{part}.logprobs"][offset + start : offset + stop] = top.values.cpu().numpy()
        progress("save teacher", offset + positions if part == "rows" else total, total)


def _outputs(teacher: Teacher, text: HealText) -> Iterator[tuple[str, int, int, TeacherOutput]]:
    """For each batch of the text: its part of the file, first position, number of positions, output."""
    width = text.rows.shape[1]
    for start in range(0, len(text.rows), _ROWS_PER_BATCH):
        indices = np.arange(start, min(start + _ROWS_PER_BATCH, len(text.rows)))
        yield "rows", start * width, len(indices) * width, teacher.rows(indices)
    offset = 0
    for index, window in enumerate(text.windows):
        yield "windows", offset, len(window), teacher.window(index)
        offset += len(window)


def _open(path: Path, writable: bool = False) -> dict[str, Any]:
    """The arrays of a cached teacher's file, memory-mapped."""
    dtypes: dict[str, Any] = {"I32": np.int32, "F16": np.float16, "U8": np.uint8}
    entries = {entry.name: entry for entry in read_header(path)[0]}
    if set(entries) != set(_TENSORS) or any(entry.dtype not in dtypes for entry in entries.values()):
        raise BadCheckpoint(f"{path} is no cached teacher: expected the tensors {', '.join(_TENSORS)}")
    mode: Any = "r+" if writable else "r"
    return {
        name: np.memmap(path, dtype=dtypes[entry.dtype], mode=mode, offset=entry.start, shape=entry.shape)
        for name, entry in entries.items()
    }
