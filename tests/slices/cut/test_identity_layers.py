"""A slice that ends on a sliding layer: under our own class, and by identity layers in stock transformers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Gemma4TextConfig

import slices.slice_classes
from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import open_checkpoint
from slices.cut.identity_layers import SliceLayer, build_slice_layers
from slices.cut.request import SliceRequest
from slices.families.table import FULL, SLIDING
from slices.windowed_attention import cache_argument
from tests.picos import IDS, bypassed, cut_exactly, difference, load, logits, write_shape

_STOCK = """
import sys, numpy, torch, transformers
torch.set_num_threads(1)
model, report = transformers.AutoModelForCausalLM.from_pretrained(
    sys.argv[1], dtype=torch.float32, local_files_only=True, output_loading_info=True)
assert not any(report.values()), report
ids = torch.tensor([list(map(int, sys.argv[3].split(",")))])
with torch.inference_mode():
    whole = model(ids).logits[0]
    first = model(ids[:, :-5], use_cache=True)
    name = "cache" if "cache" in first else "past_key_values"
    past = first[name]
    last = range(ids.shape[1] - 5, ids.shape[1])
    steps = [model(ids[:, i:i + 1], **{name: past}).logits[0, -1] for i in last]
numpy.savez(sys.argv[2], whole=whole.numpy(), steps=torch.stack(steps).numpy())
assert not [name for name in sys.modules if name.split(".")[0] in ("slices", "mom", "router")]
print(type(model).__name__)
"""


def swa(parent: Path, out: Path, spec: str = "swa", portable: bool = False) -> Any:
    return cut_exactly(
        SliceRequest(domain="biochem", layers=spec, model=str(parent), output=out, portable=portable)
    )


def test_stock_transformers_still_forces_the_last_layer() -> None:
    """Why any of this is needed; when it fails, transformers has changed and the rule can go."""
    config = Gemma4TextConfig(num_hidden_layers=2, layer_types=[SLIDING, SLIDING])
    assert config.layer_types == [SLIDING, FULL]


@pytest.mark.parametrize("shape", ["e4b", "12b"])
def test_own_class_saves_loads_and_generates_beyond_the_window(shape: str, tmp_path: Path) -> None:
    swa(write_shape(tmp_path / "parent", shape), tmp_path / "out")
    slices.slice_classes.register()
    first = load(tmp_path / "out")
    assert set(first.config.layer_types) == {SLIDING}
    load(tmp_path / "out").to(torch.bfloat16).save_pretrained(tmp_path / "again")
    again = load(tmp_path / "again")  # in bf16, since MKL rounds a mapped float32 weight otherwise
    assert type(again) is type(first)
    assert again.config.layer_types == first.config.layer_types
    assert difference(again, logits(first)) == 0.0
    made = first.generate(torch.tensor([IDS]), max_new_tokens=24, do_sample=False, eos_token_id=None)
    assert made[0].tolist() == greedy(again, 24)


def greedy(model: Any, count: int) -> list[int]:
    """Without a cache, so that no window can be forgotten wrongly."""
    ids = list(IDS)
    with torch.inference_mode():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids


def test_config_keeps_per_layer_sizes_when_made_by_hand() -> None:
    """Without a stored per_layer_config the full layers, and only they, get the global sizes."""
    config_class = type(
        AutoModelForCausalLM.from_config(slices_config([FULL, SLIDING], num_hidden_layers=2)).config
    )
    made = config_class(**_SMALL, num_hidden_layers=3, layer_types=[SLIDING, FULL, SLIDING])
    assert [made.per_layer_config[i].head_dim for i in range(3)] == [8, 16, 8]


_SMALL: dict[str, Any] = {
    "vocab_size": 32, "vocab_size_per_layer_input": 32, "hidden_size": 16, "intermediate_size": 32,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "global_head_dim": 16,
    "hidden_size_per_layer_input": 4, "sliding_window": 16,
}  # fmt: skip


def slices_config(types: list[str], **changes: Any) -> Any:
    from transformers import AutoConfig

    slices.slice_classes.register()
    return AutoConfig.for_model("gemma4_slice", **_SMALL, layer_types=types, **changes)


@pytest.mark.parametrize(
    ("shape", "spec", "identity_layers"),
    [
        ("e4b", "swa", [10, 16]),  # K/V for the last layer right before the boundary, and the last layer
        ("e4b", "drop:17", [17]),  # layer 11 has K/V of its own for the last layer to read
        ("e4b", "0-4", [5]),  # nothing shared: one will do
        ("e2b", "8,10-13", [1, 6]),
        ("12b", "swa", [10]),
        ("26b", "swa", [10]),
        ("31b", "0-3", [4]),
        ("gemma3", "swa", []),  # stock Gemma 3 may end on any layer
        ("e4b", "all", []),
    ],
)
def test_identity_layers_are_exact(shape: str, spec: str, identity_layers: list[int], tmp_path: Path) -> None:
    parent = write_shape(tmp_path / "parent", shape)
    plain = swa(parent, tmp_path / "plain", spec)
    made = swa(parent, tmp_path / "portable", spec, portable=True)
    assert made.recipe["identity_layers"] == identity_layers
    assert made.layers == plain.layers
    config = json.loads((tmp_path / "portable" / "config.json").read_text())
    assert config["model_type"] not in ("gemma4_slice", "gemma4_unified_slice")
    model = load(parent)
    with bypassed(model, made.layers):
        expected = logits(model)
    assert difference(load(tmp_path / "plain"), expected) == 0.0
    assert difference(load(tmp_path / "portable"), expected) == 0.0


def test_portable_slice_runs_without_our_package(tmp_path: Path) -> None:
    swa(write_shape(tmp_path / "parent", "e4b"), tmp_path / "plain")
    swa(tmp_path / "parent", tmp_path / "portable", portable=True)
    arguments = [str(tmp_path / "portable"), str(tmp_path / "found.npz"), ",".join(map(str, IDS))]
    done = subprocess.run(
        [sys.executable, "-c", _STOCK, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "Gemma4ForCausalLM"
    import numpy as np

    model = load(tmp_path / "plain")
    ids = torch.tensor([IDS])
    with torch.inference_mode():
        whole = model(ids).logits[0]
        name = cache_argument(model)
        past = model(ids[:, :-5], use_cache=True)[name]
        steps = [
            model(ids[:, i : i + 1], **{name: past}).logits[0, -1] for i in range(len(IDS) - 5, len(IDS))
        ]
    with np.load(tmp_path / "found.npz") as found:
        assert np.array_equal(found["whole"], whole.numpy())
        assert np.array_equal(found["steps"], torch.stack(steps).numpy())


def test_own_class_is_unknown_to_a_process_without_our_package(tmp_path: Path) -> None:
    """Better refused by name than misread: the slice's model_type is not the stock one."""
    swa(write_shape(tmp_path / "parent", "e4b"), tmp_path / "plain")
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert config["model_type"] == "gemma4_slice"
    assert config["architectures"] == ["Gemma4SliceForCausalLM"]


def test_identity_layers_hold_nothing(tmp_path: Path) -> None:
    swa(write_shape(tmp_path / "parent", "e4b"), tmp_path / "out", portable=True)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    ours = {name: tensor for name, tensor in tensors.items() if name.split(".")[2] in ("10", "16")}
    assert len(ours) == 17 + 14  # the second has no K/V of its own
    for name, tensor in ours.items():
        assert tensor.unique().tolist() == [1.0 if tensor.dim() == 1 else 0.0], name  # type: ignore[no-untyped-call]
    blocks = tensors["model.embed_tokens_per_layer.weight"].unflatten(1, (17, 16))  # type: ignore[no-untyped-call]
    rows = tensors["model.per_layer_model_projection.weight"].unflatten(0, (17, 16))  # type: ignore[no-untyped-call]
    assert [i for i in range(17) if not blocks[:, i].any()] == [10, 16]
    assert [i for i in range(17) if not rows[i].any()] == [10, 16]


def test_the_donors_lie_where_llama_cpp_looks(tmp_path: Path) -> None:
    """Its donor is hard-coded: the last own layer for full attention, the one before it for sliding."""
    parent = write_shape(tmp_path / "parent", "e4b")
    anatomy = read_anatomy(open_checkpoint(parent).config)
    slice_layers = build_slice_layers(anatomy, anatomy.sliding, portable=True)
    own = [layer for layer in slice_layers if not layer.shared]
    assert own[-2:] == [SliceLayer(10, SLIDING, False), SliceLayer(None, FULL, False)]


def test_a_slice_can_be_sliced_again(tmp_path: Path) -> None:
    """A slice under our own class is a parent like any other, and can become portable later."""
    parent = write_shape(tmp_path / "parent", "e4b")
    swa(parent, tmp_path / "first")
    swa(tmp_path / "first", tmp_path / "second", "drop:0", portable=True)
    kept = [i for i in range(1, 18) if i % 6 != 5]
    model = load(parent)
    with bypassed(model, kept):
        expected = logits(model)
    assert difference(load(tmp_path / "second"), expected) == 0.0


def test_notes_say_how_to_load(tmp_path: Path) -> None:
    parent = write_shape(tmp_path / "parent", "e4b")
    assert "slices.slice_classes.register()" in swa(parent, tmp_path / "a").notes[-1]
    assert (
        "let stock transformers load the slice: layer 10 and 16"
        in swa(parent, tmp_path / "b", portable=True).notes[-1]
    )
    full = swa(parent, tmp_path / "c", "full").notes[-1]
    assert "stock llama.cpp does not without a sliding identity layer" in full
