"""Expected token counts under the parent: a rank for the vocabulary rows that a short text does not fill.

The sum of the parent's next-token distributions at every position of a text. Thirty kilobytes hold a few
thousand tokens; the probabilities at each position cover the rest of the domain's vocabulary. Compared
with the order of ids in docs/log.md.
"""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slices.checkpoint import Checkpoint, fingerprint
from slices.files import atomic
from slices.home import home
from slices.progress import Progress, no_progress
from slices.runtime import Runtime
from slices.runtimes.llama_pool import N_CTX, map_on_all_cores
from slices.runtimes.torch_runtime import TorchRuntime
from slices.text.corpus import Corpus


def expected_counts(
    checkpoint: Checkpoint, gguf: Path | None, text: Corpus, progress: Progress = no_progress
) -> NDArray[np.float32]:
    """Expected occurrences of each token id over the text, shape (vocabulary,); cached.

    Args:
        gguf: the parent as a GGUF, which is the faster reader; None reads with torch.
        progress: called with the documents read and their number.

    Raises:
        MissingExtra: the runtime is not installed.
    """
    reader = gguf.name if gguf else "torch"
    key = hashlib.sha256(f"{fingerprint(checkpoint)} {text.sha256} {reader}".encode()).hexdigest()[:16]
    cache = home() / "scores" / f"expected-{key}.npy"
    if not cache.is_file():
        total = np.zeros(0)
        for done, counts in enumerate(_read(checkpoint, gguf, text), 1):
            total = counts if not len(total) else total + counts
            progress("rank rows", done, len(text.documents))
        with atomic.staged(cache, force=True) as partial, partial.open("wb") as file:
            np.save(file, total.astype(np.float32), allow_pickle=False)
    found: NDArray[np.float32] = np.load(cache, allow_pickle=False)
    return found


def _read(checkpoint: Checkpoint, gguf: Path | None, text: Corpus) -> Iterator[NDArray[np.float64]]:
    """Expected occurrences over each document."""
    if gguf is not None:
        yield from map_on_all_cores(gguf, _expect, text.documents)
        return
    with closing(TorchRuntime(checkpoint.folder)) as runtime:
        for document in text.documents:
            yield _expect(runtime, document)


def _expect(runtime: Runtime, document: str) -> NDArray[np.float64]:
    return runtime.expected_counts(runtime.encode(document)[: N_CTX - 1])
