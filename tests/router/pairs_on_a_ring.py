"""Texts that are places on a circle, of two domains by turns: no line divides them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ARCS = 8


def ring(count: int, shift: float = 0.0) -> list[tuple[str, str]]:
    """(text, domain), evenly around the circle; the text is the share of the way in millionths."""
    places = [(at + shift) / count for at in range(count)]
    return [(f"{round(1e6 * place):06d}", ("law", "biochem")[int(place * ARCS) % 2]) for place in places]


class Ring:
    """Embeds a share of the way as a point of the circle; of anything else, the beginning."""

    name, finetuned = "ring", False

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), 2)."""
        turns = [int(text) / 1e6 if text.isdigit() else 0.0 for text in texts]
        angles = 2 * np.pi * np.array(turns)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
