"""The choices of `--compare`: when a slice is compared with the parent's plain quants of equal size."""

from enum import StrEnum


class CompareMode(StrEnum):
    """When to compare."""

    AUTO = "auto"  # only where the parent is small
    ALWAYS = "always"
    NEVER = "never"
