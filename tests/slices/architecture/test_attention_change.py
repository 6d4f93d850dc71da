"""Slices that attend to less than their parent are told from those that do not."""

from pathlib import Path

import pytest

from slices.architecture.anatomy import Anatomy, read_anatomy
from slices.architecture.attention_change import reduces_attention
from slices.checkpoint import open_checkpoint
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.families.table import FULL, SLIDING
from tests.picos import SHAPES, write_gemma3, write_shape


def anatomy(folder: Path) -> Anatomy:
    return read_anatomy(open_checkpoint(folder).config)


@pytest.mark.parametrize("shape", ["gemma3", "e2b"])
@pytest.mark.parametrize(
    ("removed", "reduced"), [(None, False), (SLIDING, False), (FULL, True)], ids=["whole", "sliding", "full"]
)
def test_only_a_removed_full_layer_reduces_attention(
    shape: str, removed: str | None, reduced: bool, tmp_path: Path
) -> None:
    parent = write_shape(tmp_path / "parent", shape)
    types = SHAPES[shape]["layer_types"]
    gone = None if removed is None else types.index(removed)
    layers = ",".join(str(index) for index in range(len(types)) if index != gone)
    cut(SliceRequest(domain="law", layers=layers, model=str(parent), output=tmp_path / "slice"))
    assert reduces_attention(anatomy(tmp_path / "slice"), anatomy(parent)) is reduced


def test_a_full_layer_made_sliding_or_a_shorter_window_reduces_attention(tmp_path: Path) -> None:
    parent = anatomy(write_gemma3(tmp_path / "parent", [SLIDING, FULL, SLIDING, FULL]))
    sliding = anatomy(write_gemma3(tmp_path / "sliding", [SLIDING, FULL, SLIDING, SLIDING]))
    shorter = anatomy(write_gemma3(tmp_path / "shorter", [SLIDING, FULL, SLIDING, FULL], sliding_window=8))
    assert parent.dims.sliding_window > 8
    assert reduces_attention(sliding, parent)
    assert reduces_attention(shorter, parent)
    assert not reduces_attention(parent, sliding)
    assert reduces_attention(parent, parent, identity_layers=[3])
    assert not reduces_attention(parent, parent, identity_layers=[2])
