"""A refit embeds only what is new, and a file that lies is not believed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from router.embedding.embedder import PROBE, HashEmbedder
from router.embedding.vector_cache import Known


class Counting(HashEmbedder):
    """Notes what it is asked; `turned` gives other vectors under the same name."""

    def __init__(self, turned: bool = False) -> None:
        super().__init__(16)
        self.asked: list[str] = []
        self._turned = turned

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += [text for text in texts if text != PROBE]
        return super().embed(texts)[:, :: -1 if self._turned else 1].copy()


def fill(folder: Path, texts: Sequence[str]) -> list[str]:
    """What was computed for `texts`, the file being kept after."""
    inner = Counting()
    known = Known(inner, folder)
    assert (known.embed(texts) == HashEmbedder(16).embed(texts)).all()
    known.save()
    return inner.asked


def test_what_the_last_fit_used_is_kept(tmp_path: Path) -> None:
    assert fill(tmp_path, ["a", "b", "a", "\ud800"]) == ["a", "b", "\ud800"]
    assert fill(tmp_path, ["b", "c"]) == ["c"]
    assert fill(tmp_path, ["a", "b"]) == ["a"]


def test_another_embedder_of_the_name_starts_anew(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    other = Counting(turned=True)
    assert (Known(other, tmp_path).embed(["a"]) == HashEmbedder(16).embed(["a"])[:, ::-1]).all()
    assert other.asked == ["a"]


@pytest.mark.parametrize("damage", [b"", b"\xff" * 64, None])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, damage: bytes | None) -> None:
    fill(tmp_path, ["a"])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-7] if damage is None else damage)
    assert fill(tmp_path, ["a"]) == ["a"]
    assert fill(tmp_path, ["a"]) == []
