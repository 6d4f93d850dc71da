"""The choices of a cut about its full-attention layers. Imports nothing, since the command line reads it."""

from enum import StrEnum


class Attention(StrEnum):
    """What becomes of the full-attention layers that a cut keeps."""

    KEEP = "keep"
    SLIDING = "sliding"  # limited to the sliding window


class RopeTheta(StrEnum):
    """The rotary theta of full-attention layers that are limited to the sliding window."""

    LOCAL = "local"  # the sliding layers' own
    GLOBAL = "global"  # the full-attention layers' own: only the mask changes
