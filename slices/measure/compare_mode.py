"""The choices of `--compare`: when a slice is compared with the parent's plain quants of equal size."""

from enum import StrEnum


class CompareMode(StrEnum):
    """When to compare."""

    AUTO = "auto"  # only where the parent is small
    ALWAYS = "always"
    NEVER = "never"


MAX_AUTO_PARENT_BYTES = 4_000_000_000  # a larger parent's plain quants are measured on request only


def skip_reason(when: CompareMode, parent_bytes: int) -> str | None:
    """Why a parent of `parent_bytes` is not compared with, None where it is."""
    if when is CompareMode.NEVER:
        return "it was not measured; --compare always does"
    if when is CompareMode.AUTO and parent_bytes > MAX_AUTO_PARENT_BYTES:
        return "the parent is big, so it was not measured; --compare always does"
    return None
