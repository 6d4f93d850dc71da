"""A windowed slice is its parent up to the window, and its parent under the sliding mask beyond it."""

from pathlib import Path
from typing import Any

import pytest

from slices.architecture.anatomy import read_anatomy
from slices.architecture.attention import Attention, RopeTheta
from slices.checkpoint import open_checkpoint
from slices.cut.request import SliceRequest
from slices.errors import Unsupported
from slices.export import export
from slices.families.table import FULL, SLIDING
from slices.windowed_attention import cache_argument
from tests.picos import IDS, SHAPES, calm, cut_exactly, load, logits, write_shape

WINDOW = 16


def windowed_slice(parent: Path, target: Path) -> Path:
    cut_exactly(
        SliceRequest(
            domain="law",
            layers="all",
            model=str(parent),
            output=target,
            attention=Attention.SLIDING,
            rope_theta=RopeTheta.GLOBAL,
        )
    )
    return target


def under_sliding_mask(model: Any, ids: list[int]) -> Any:
    """The stock parent's logits with the mask of its sliding layers in every layer."""
    import torch

    tokens = torch.tensor([ids])
    distance = torch.arange(len(ids))[:, None] - torch.arange(len(ids))[None]
    mask = torch.zeros(len(ids), len(ids)).masked_fill((distance < 0) | (distance >= WINDOW), -torch.inf)
    masks = dict.fromkeys((FULL, SLIDING), mask[None, None])
    with torch.inference_mode():
        return model(tokens, attention_mask=masks).logits[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_its_parent_under_the_sliding_mask(shape: str, tmp_path: Path) -> None:
    import torch

    parent = calm(write_shape(tmp_path / "parent", shape))
    slice_, stock = load(windowed_slice(parent, tmp_path / "slice")), load(parent)
    whole, steps = logits(slice_)
    with torch.inference_mode():
        short = [model(torch.tensor([IDS[:WINDOW]])).logits for model in (slice_, stock)]
    assert torch.equal(*short)  # the KL is exactly 0 within the window
    expected, unlimited = under_sliding_mask(stock, IDS), logits(stock)[0]
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(steps, whole[-6:-1], atol=1e-4, rtol=1e-4)
    assert float((whole - unlimited)[-1].abs().max().item()) > 1e-3


@pytest.mark.parametrize("shape", ["e4b", "gemma3"])
def test_the_cache_of_every_layer_ends_with_the_window(shape: str, tmp_path: Path) -> None:
    import torch

    folder = windowed_slice(write_shape(tmp_path / "parent", shape), tmp_path / "slice")
    model = load(folder)
    with torch.inference_mode():
        cache = model(torch.tensor([IDS]), use_cache=True)[cache_argument(model)]
        drawn = model.generate(torch.tensor([IDS]), max_new_tokens=6, do_sample=False, eos_token_id=None)
        again = [int(model(drawn[:, : len(IDS) + n]).logits[0, -1].argmax()) for n in range(6)]
    assert {layer.keys.shape[2] for layer in cache.layers if layer.keys is not None} == {WINDOW - 1}
    assert drawn[0, len(IDS) :].tolist() == again


def test_a_windowed_slice_of_a_windowed_slice_stays_one(tmp_path: Path) -> None:
    first = windowed_slice(write_shape(tmp_path / "parent", "gemma3"), tmp_path / "first")
    made = cut_exactly(
        SliceRequest(domain="law", layers="drop:0", model=str(first), output=tmp_path / "second")
    )
    anatomy = read_anatomy(open_checkpoint(tmp_path / "second").config)
    assert anatomy.model_type == "gemma3_slice"
    assert anatomy.windowed == anatomy.full == [4, 10]
    assert made.attention == "keep"


@pytest.mark.parametrize("shape", ["e4b", "gemma3"])
def test_no_gguf_is_written_of_the_global_theta(shape: str, tmp_path: Path) -> None:
    folder = windowed_slice(write_shape(tmp_path / "parent", shape), tmp_path / "slice")
    with pytest.raises(Unsupported, match="serve this slice in torch"):
        export(folder, tmp_path / "slice.gguf")
