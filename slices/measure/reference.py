"""What a reference expects of held-out text, kept on disk, so that one file after another is held against it.

A distribution over every token for every position takes 2 bytes x positions x vocabulary: float16 log
probabilities in an unnamed temporary file, which the system frees however the process ends. Read back and
made to sum to one, they differ from float32 by a KL of 2e-7 nat (Gemma 3 270M, law); a BF16 file differs
by 5e-5. Comparing is done in `slices.measure.divergence`, not here.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from slices.errors import RunFailed
from slices.measure.heldout import Heldout
from slices.runtime import Runtime
from slices.runtimes.softmax import ROWS

TEXT_BYTES = 12_000  # of text by default: 2,700 tokens, 1.4 GB at 262 thousand tokens of vocabulary
Progress = Callable[[str, int, int], None]  # what is read, windows done, windows in all
Windows = tuple[tuple[int, ...], ...]  # token ids of each


@dataclass(frozen=True)
class Reference:
    """One model's distributions over the positions of a text. Valid inside `kept` only.

    The ids in `windows` and the columns of `stored` are those of the models that are compared with it.
    """

    name: str
    text: Heldout
    windows: Windows
    scored: NDArray[np.float64]  # (positions,) log probability of the token that came
    top: NDArray[np.int64]  # (positions,) the likeliest token
    lost: NDArray[np.float64] | None  # (positions,) probability of the tokens that have no column
    stored: NDArray[np.float16]  # (positions, vocabulary) log probabilities


@contextmanager
def kept(
    name: str,
    runtime: Runtime,
    text: Heldout,
    windows: Sequence[Sequence[int]] | None = None,
    ids: NDArray[np.int64] | None = None,
    room: Path | None = None,
    progress: Progress | None = None,
) -> Iterator[Reference]:
    """Run `runtime` over `text` and yield what it expects. The runtime is not needed after that.

    Args:
        windows: token ids of each window; by default as the runtime encodes it.
        ids: for models with a part of the runtime's vocabulary: its id of each of theirs, -1 for a row
            without a token, shape (part,). The probability of the part is then made to sum to one.
        room: a folder for the temporary file; by default the system's.

    Raises:
        RunFailed: the runtime gives no finite probability, or the disk has too little room; with figures.
    """
    theirs = _whole(name, windows or [runtime.encode(window.text) for window in text.windows])
    own = theirs if ids is None else tuple(tuple(ids[list(each)].tolist()) for each in theirs)
    positions = sum(len(each) - 1 for each in own)
    scored, lost, top = np.empty(positions), np.empty(positions), np.empty(positions, np.int64)
    with tempfile.TemporaryFile(dir=room) as file:
        stored: NDArray[np.float16] | None = None
        for at, came, chunk in chunks(name, runtime, own, progress):
            rows = slice(at, at + len(chunk))
            scored[rows] = chunk[np.arange(len(chunk)), came]
            part, lost[rows] = (chunk, 0.0) if ids is None else restricted(chunk, ids)
            top[rows] = part.argmax(axis=1)
            if stored is None:
                stored = _reserved(file, positions, part.shape[1], room)
            stored[rows] = part
        if stored is None:
            raise RunFailed(f"{name}: there is no position to read")
        yield Reference(name, text, theirs, scored, top, None if ids is None else lost, stored)


def chunks(
    name: str, runtime: Runtime, windows: Windows, progress: Progress | None = None
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
    """All positions, in order: the first one's number, the tokens that came, and their distributions.

    Shapes (), (some,) and (some, vocabulary).

    Raises:
        RunFailed: the runtime is short of positions, or its probabilities are no numbers.
    """
    at = 0
    for number, tokens in enumerate(windows, start=1):
        came, done = np.array(tokens[1:], dtype=np.int64), 0
        for chunk in runtime.distributions(tokens):
            here = came[done : done + len(chunk)]
            if (
                not np.isfinite(chunk.max(axis=1)).all()
                or not np.isfinite(chunk[range(len(here)), here]).all()
            ):
                raise RunFailed(f"{name} gave no finite probability to every token of window {number}")
            yield at + done, here, chunk
            done += len(chunk)
        if done != len(came):
            raise RunFailed(f"{name} gave {done} distributions for the {len(came)} tokens of window {number}")
        at += done
        if progress:
            progress(f"read with {name}", number, len(windows))


def restricted(
    chunk: NDArray[np.float32], ids: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Log probabilities (positions, vocabulary) shared out over the tokens `ids` (part,), -1 for none.

    Returns:
        Log probabilities that sum to one, (positions, part), and what the other tokens had, (positions,).
    """
    part = np.where(ids >= 0, chunk[:, ids], np.float32(-np.inf))
    total = np.empty(len(part))
    for start in range(0, len(part), ROWS):
        total[start : start + ROWS] = np.exp(part[start : start + ROWS]).sum(axis=1, dtype=np.float64)
    part -= np.log(total).astype(np.float32)[:, None]
    return part, np.maximum(0.0, 1.0 - total)


def _whole(name: str, windows: Sequence[Sequence[int]]) -> Windows:
    for number, tokens in enumerate(windows, start=1):
        if len(tokens) < 2:
            raise RunFailed(f"{name}: window {number} gave {len(tokens)} tokens; expected bos and one more")
    return tuple(tuple(tokens) for tokens in windows)


def _reserved(file: IO[bytes], positions: int, columns: int, room: Path | None) -> NDArray[np.float16]:
    """An array (positions, columns) in `file`, whose blocks are taken now: a full disk would kill later."""
    folder = room or Path(tempfile.gettempdir())
    needed, free = positions * columns * 2, shutil.disk_usage(folder).free
    refusal = RunFailed(
        f"keeping {positions:,} distributions over {columns:,} tokens needs {needed:,} bytes in {folder}, "
        f"but only {free:,} are free; measure on less text, or set TMPDIR to a larger disk"
    )
    if needed > free:
        raise refusal
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, needed)
        return np.memmap(file, dtype=np.float16, mode="w+", shape=(positions, columns))
    except OSError:
        raise refusal from None
