"""The choices of `--compare`: when a slice is compared with the parent's plain quants of equal size."""

from enum import StrEnum


class CompareMode(StrEnum):
    """When to compare."""

    AUTO = "auto"  # only where it takes minutes or is cached
    ALWAYS = "always"
    NEVER = "never"


NOT_MEASURED = "it was not measured; --compare always does"
