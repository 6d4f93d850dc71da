"""Whether a slice attends to less of a long text than its parent: decided by their anatomies alone."""

from collections.abc import Collection

from slices.architecture.anatomy import Anatomy


def reduces_attention(own: Anatomy, parent: Anatomy, identity_layers: Collection[int] = ()) -> bool:
    """Whether a slice has fewer full-attention layers than its parent, or a shorter sliding window.

    A full layer that was made a sliding one, or limited to the window, counts as one fewer, as a removed one.

    Args:
        identity_layers: indices of the slice's layers that do nothing, and so attend to nothing.
    """
    full = set(own.full) - set(own.windowed) - set(identity_layers)
    shorter = bool(own.sliding) and own.dims.sliding_window < parent.dims.sliding_window
    return len(full) < len(parent.full) - len(parent.windowed) or shorter
