"""The vector cache: a refit embeds only new queries, and stale or damaged files are ignored."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from router.embedding.embedder import REFERENCE_TEXT, HashEmbedder
from router.embedding.vector_cache import VectorCache


class RecordingEmbedder(HashEmbedder):
    """Records the texts that it embeds; `reverse` gives other vectors under the same name."""

    def __init__(self, reverse: bool = False) -> None:
        super().__init__(16)
        self.embedded: list[str] = []
        self._reverse = reverse

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded += [text for text in texts if text != REFERENCE_TEXT]
        return super().embed(texts)[:, :: -1 if self._reverse else 1].copy()


def embed_and_save(folder: Path, texts: Sequence[str]) -> list[str]:
    """The cache misses of `texts`; the cache is saved afterwards."""
    inner = RecordingEmbedder()
    cache = VectorCache(inner, folder)
    assert (cache.embed(texts) == HashEmbedder(16).embed(texts)).all()
    cache.save()
    return inner.embedded


def test_what_the_last_fit_used_is_kept(tmp_path: Path) -> None:
    assert embed_and_save(tmp_path, ["a", "b", "a", "\ud800"]) == ["a", "b", "\ud800"]
    assert embed_and_save(tmp_path, ["b", "c"]) == ["c"]
    assert embed_and_save(tmp_path, ["a", "b"]) == ["a"]


def test_another_embedder_of_the_same_name_invalidates_the_cache(tmp_path: Path) -> None:
    embed_and_save(tmp_path, ["a"])
    other = RecordingEmbedder(reverse=True)
    assert (VectorCache(other, tmp_path).embed(["a"]) == HashEmbedder(16).embed(["a"])[:, ::-1]).all()
    assert other.embedded == ["a"]


@pytest.mark.parametrize("damage", [b"", b"\xff" * 64, None])
def test_a_damaged_file_counts_as_empty(tmp_path: Path, damage: bytes | None) -> None:
    embed_and_save(tmp_path, ["a"])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-7] if damage is None else damage)
    assert embed_and_save(tmp_path, ["a"]) == ["a"]
    assert embed_and_save(tmp_path, ["a"]) == []
