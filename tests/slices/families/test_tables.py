"""The table of each family is total: it names every tensor that the real classes save, and nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from slices.architecture.anatomy import count_parameters, match_tensors, read_anatomy
from slices.checkpoint import Checkpoint, open_checkpoint
from slices.cut.request import SliceRequest
from slices.errors import BadCheckpoint, Unsupported
from tests.picos import (
    IDS,
    SHAPES,
    add_dead_kv,
    cut_exactly,
    load,
    shard,
    write_multimodal,
    write_shape,
)


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(folder)


def called_for(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    known = read_anatomy(checkpoint.config).tensors
    return {name: tensor.shape for name, tensor in known.items() if not tensor.dead}


@pytest.mark.parametrize("shape", SHAPES)
def test_text_tables_are_total(shape: str, tmp_path: Path) -> None:
    checkpoint = opened(write_shape(tmp_path / "parent", shape))
    saved = {entry.name.removeprefix("model."): entry.shape for entry in checkpoint.entries}
    assert saved == called_for(checkpoint)


@pytest.mark.parametrize("shape", ["e2b", "12b", "26b", "gemma3"])
def test_multimodal_parents_lose_their_towers(shape: str, tmp_path: Path) -> None:
    """Of the multimodal class as transformers saves it; the slice alone answers as the whole does."""
    folder = write_multimodal(tmp_path / "parent", shape)
    found, dropped = match_tensors(opened(folder), read_anatomy(opened(folder).config))
    assert {name: entry.shape for name, entry in found.items()} == called_for(opened(folder))
    assert dropped
    made = cut_exactly(
        SliceRequest(domain="biochem", layers="all", model=str(folder), output=tmp_path / "out")
    )
    assert f"{len(dropped)} tensors that are not text are dropped" in made.notes[0]
    with torch.inference_mode():
        ids = torch.tensor([IDS])
        assert torch.equal(load(folder)(ids).logits, load(tmp_path / "out")(ids).logits)


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model.", "model."])
def test_gemma3_prefixes(prefix: str, tmp_path: Path) -> None:
    folder = write_shape(tmp_path / "parent", "gemma3")
    renamed(folder, lambda name: prefix + name.removeprefix("model."))
    found, _ = match_tensors(opened(folder), read_anatomy(opened(folder).config))
    assert {name: entry.shape for name, entry in found.items()} == called_for(opened(folder))


def renamed(folder: Path, name: Any, **more: torch.Tensor) -> Path:
    file = folder / "model.safetensors"
    stored = {name(old): tensor for old, tensor in load_file(file).items()} | more
    save_file(stored, file, metadata={"format": "pt"})
    return folder


def test_shards_and_dead_kv_change_nothing(tmp_path: Path) -> None:
    whole = write_shape(tmp_path / "whole", "e2b")
    split = shard(add_dead_kv(Path(shutil.copytree(whole, tmp_path / "split"))))
    made = [
        cut_exactly(
            SliceRequest(
                domain="biochem", layers="drop:2,7", model=str(folder), output=tmp_path / f"out-{folder.name}"
            )
        )
        for folder in (whole, split)
    ]
    assert any("15 K/V tensors of layers that share K/V are dropped" in note for note in made[1].notes)
    first, second = (load_file(tmp_path / f"out-{name}" / "model.safetensors") for name in ("whole", "split"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "name",
    ["model.layers.3.self_attn.q_proj.bias", "model.layers.15.mlp.up_proj.weight", "model.extra", "weird"],
)
def test_an_unknown_tensor_stops_the_cut_by_name(name: str, tmp_path: Path) -> None:
    folder = renamed(write_shape(tmp_path / "parent", "e2b"), str, **{name: torch.zeros(2)})
    with pytest.raises(BadCheckpoint, match=f"'{name}' is unknown to gemma4"):
        cut_exactly(SliceRequest(domain="biochem", layers="all", model=str(folder), output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    folder = renamed(
        write_shape(tmp_path / "parent", "e2b"), str, **{"model.language_model.norm.weight": torch.ones(32)}
    )
    with pytest.raises(BadCheckpoint, match=r"both 'norm\.weight'"):
        match_tensors(opened(folder), read_anatomy(opened(folder).config))


def test_untied_embeddings_are_refused(tmp_path: Path) -> None:
    """A separate lm_head used to be dropped as a tied copy, whatever the config said."""
    folder = write_shape(tmp_path / "parent", "31b")
    config = json.loads((folder / "config.json").read_text())
    for changed in (
        config | {"tie_word_embeddings": False},
        {"model_type": "gemma4", "text_config": config, "tie_word_embeddings": False},
    ):
        with pytest.raises(Unsupported, match="tie_word_embeddings is false"):
            read_anatomy(changed)


def test_gemma3_4b_leaves_its_heads_unsaid() -> None:
    """The published 4B config states neither heads nor vocabulary; that used to be refused."""
    text = {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    }  # fmt: skip
    anatomy = read_anatomy({"model_type": "gemma3", "text_config": text, "eos_token_id": [1, 106]})
    assert count_parameters(anatomy)[0].total == 3_880_263_168
    assert anatomy.full == [5, 11, 17, 23, 29]
    assert (anatomy.layers[0].heads, anatomy.layers[0].kv_heads, anatomy.dims.vocab) == (8, 4, 262208)


@pytest.mark.parametrize(
    ("changes", "match_"),
    [
        ({"per_layer_config": {"5": {"sliding_window": 8}}}, r"layer 5 sets \['sliding_window'\]"),
        ({"per_layer_config": {"5": {"skip": ["mlp"]}}}, r"layer 5 sets \['skip'\]"),
        ({"model_type": "llama"}, "the text model is a 'llama'"),
    ],
)
def test_what_the_table_does_not_know_is_refused(changes: dict[str, Any], match_: str) -> None:
    text = {"model_type": "gemma4_text", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 6}
    with pytest.raises(Unsupported, match=match_):
        read_anatomy({"model_type": "gemma4", "text_config": text | changes})


def _published(
    every: int, layers: int, hidden: int, ffn: int, heads: tuple[int, int], **more: Any
) -> dict[str, Any]:
    types = ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]
    sizes = {"hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers, "head_dim": 256}
    counts = {"num_attention_heads": heads[0], "num_key_value_heads": heads[1], "layer_types": types}
    base = {"model_type": "gemma4_text", "global_head_dim": 512, "hidden_size_per_layer_input": 0}
    return base | sizes | counts | more


@pytest.mark.parametrize(
    ("config", "donors", "billions"),
    [
        (_published(6, 42, 2560, 10240, (8, 2), hidden_size_per_layer_input=256, num_kv_shared_layers=18),
         {"sliding_attention": 22, "full_attention": 23}, 7.518),
        (_published(5, 35, 1536, 6144, (8, 1), hidden_size_per_layer_input=256, num_kv_shared_layers=20,
                    use_double_wide_mlp=True), {"sliding_attention": 13, "full_attention": 14}, 4.647),
        (_published(6, 48, 3840, 15360, (16, 8), model_type="gemma4_unified_text", attention_k_eq_v=True,
                    num_global_key_value_heads=1), {}, 11.907),
        (_published(6, 30, 2816, 2112, (16, 8), attention_k_eq_v=True, num_global_key_value_heads=2,
                    enable_moe_block=True, num_experts=128, moe_intermediate_size=704), {}, 25.233),
        (_published(6, 60, 5376, 21504, (32, 16), attention_k_eq_v=True, num_global_key_value_heads=4),
         {}, 30.697),
    ],
    ids=["E4B", "E2B", "12B", "26B-A4B", "31B"],
)  # fmt: skip
def test_published_sizes(config: dict[str, Any], donors: dict[str, int], billions: float) -> None:
    """The family's published configs, by their figures."""
    anatomy = read_anatomy(config)
    assert anatomy.donors == donors
    assert count_parameters(anatomy)[0].total / 1e9 == pytest.approx(billions, abs=0.001)
