"""Held-out windows as a model's tokens: what it reads, and from where on it is scored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slices.errors import RunFailed
from slices.measure.heldout import Heldout
from slices.runtime import Runtime


@dataclass(frozen=True)
class Passage:
    """Token ids of a window, context included; `first` is the number of the first that is scored."""

    tokens: tuple[int, ...]
    first: int

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return len(self.tokens) - self.first


def read_windows(name: str, runtime: Runtime, text: Heldout) -> tuple[Passage, ...]:
    """Every window as `runtime` reads it. Context and text are encoded apart, so that no token spans both.

    Raises:
        RunFailed: a window gives no token to score; `name` is in the message.
    """
    opening = len(runtime.encode(""))
    found = []
    for window in text.windows:
        before = runtime.encode(window.context)
        tokens = [*before, *runtime.encode(window.text)[opening:]]
        first = max(len(before), 1)
        if len(tokens) <= first:
            raise RunFailed(f"{name}: {window.nbytes} bytes of text gave {len(tokens)} tokens; expected more")
        found.append(Passage(tuple(tokens), first))
    return tuple(found)


def in_ids(passages: Sequence[Passage], ids: NDArray[np.int64]) -> tuple[Passage, ...]:
    """The same passages in another model's ids, of which `ids` (vocabulary,) are this one's."""
    return tuple(Passage(tuple(ids[list(each.tokens)].tolist()), each.first) for each in passages)


def documents_of(text: Heldout) -> NDArray[np.int64]:
    """The number, from 0 on and without gaps, of the document of each window; shape (windows,)."""
    place = {number: row for row, number in enumerate(sorted({w.document for w in text.windows}))}
    return np.array([place[window.document] for window in text.windows], dtype=np.int64)
