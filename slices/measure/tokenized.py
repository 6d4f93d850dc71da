"""Held-out windows as a model's token ids: what is read, and from which token on it is scored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slices.errors import RunFailed
from slices.measure.heldout import Heldout
from slices.runtime import Runtime


@dataclass(frozen=True)
class TokenWindow:
    """Token ids of a window, its context included. `first_scored`: index of the first that is scored."""

    tokens: tuple[int, ...]
    first_scored: int

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return len(self.tokens) - self.first_scored


def tokenize_windows(name: str, runtime: Runtime, text: Heldout) -> tuple[TokenWindow, ...]:
    """Encode every window. Context and text are encoded apart, so that no token spans both.

    Raises:
        RunFailed: a window has no token to score; `name` is in the message.
    """
    bos = len(runtime.encode(""))
    windows = []
    for number, window in enumerate(text.windows, start=1):
        context = runtime.encode(window.context)
        tokens = [*context, *runtime.encode(window.text)[bos:]]
        first_scored = max(len(context), 1)
        if len(tokens) <= first_scored:
            raise RunFailed(
                f"{name}: window {number} gave {len(tokens)} tokens; expected bos and one more, "
                f"since it has {window.nbytes} bytes"
            )
        windows.append(TokenWindow(tuple(tokens), first_scored))
    return tuple(windows)


def map_token_ids(windows: Sequence[TokenWindow], ids: NDArray[np.int64]) -> tuple[TokenWindow, ...]:
    """The same windows in another vocabulary: `ids` (vocabulary,) holds its id for each of this one's."""
    return tuple(TokenWindow(tuple(ids[list(each.tokens)].tolist()), each.first_scored) for each in windows)


def document_indices(text: Heldout) -> NDArray[np.int64]:
    """The index of each window's document, counted from 0 without gaps; shape (windows,)."""
    index = {number: row for row, number in enumerate(sorted({w.document for w in text.windows}))}
    return np.array([index[window.document] for window in text.windows], dtype=np.int64)
