"""K/V cache of a model in bytes a token, from its config: inside the sliding window and beyond it."""

from dataclasses import dataclass

from slices.architecture.anatomy import Anatomy
from slices.families.table import FULL

_F16_BYTES = 2


@dataclass(frozen=True)
class KvCacheBytes:
    """Float16 K/V of a token in the sliding window, and of an earlier one, which only some layers keep."""

    per_token: int
    beyond_window: int


def kv_cache_bytes(anatomy: Anatomy) -> KvCacheBytes:
    """The bytes of all layers with K/V of their own; beyond the window, of those without a window."""
    caching = [layer for layer in anatomy.layers if not layer.shared]
    sizes = [2 * layer.kv_heads * layer.head_dim * _F16_BYTES for layer in caching]
    kept = [layer.type == FULL and not layer.windowed for layer in caching]
    return KvCacheBytes(sum(sizes), sum(size for size, keeps in zip(sizes, kept, strict=True) if keeps))
