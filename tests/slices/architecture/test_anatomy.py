"""What a config says of a model, and the configs and checkpoints that are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from slices.architecture.anatomy import FAMILIES, count_parameters, match_tensors, read_anatomy
from slices.checkpoint import open_checkpoint
from slices.errors import BadCheckpoint, Unsupported

E4B: dict[str, Any] = {
    "model_type": "gemma4_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 42,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "global_head_dim": 512,
    "num_kv_shared_layers": 18, "hidden_size_per_layer_input": 256, "vocab_size": 262144,
}  # fmt: skip
SMALL = {"model_type": "gemma3_text", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 7,
         "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip


def test_e4b_by_the_numbers() -> None:
    anatomy = read_anatomy(E4B)
    parameters, dead = count_parameters(anatomy)
    assert parameters.total == 7_518_069_034
    assert round((parameters.total - dead) / 1e9, 3) == 7.463
    assert parameters.per_layer_embedding == 262144 * 42 * 256
    assert anatomy.full == [5, 11, 17, 23, 29, 35, 41]
    assert anatomy.donors == {"sliding_attention": 22, "full_attention": 23}


def test_e2b_widens_its_sharing_layers() -> None:
    types = (["sliding_attention"] * 4 + ["full_attention"]) * 7
    config = E4B | {
        "hidden_size": 1536,
        "intermediate_size": 6144,
        "num_hidden_layers": 35,
        "layer_types": types,
    }
    config |= {"num_key_value_heads": 1, "num_kv_shared_layers": 20, "use_double_wide_mlp": True}
    anatomy = read_anatomy(config)
    assert [layer.ffn for layer in anatomy.layers] == [6144] * 15 + [12288] * 20
    assert anatomy.donors == {"sliding_attention": 13, "full_attention": 14}


def test_keys_as_values_on_full_layers() -> None:
    config = E4B | {"attention_k_eq_v": True, "num_global_key_value_heads": 1, "num_kv_shared_layers": 0}
    names = read_anatomy(config).tensors
    assert "layers.5.self_attn.v_proj.weight" not in names
    assert names["layers.5.self_attn.k_proj.weight"].shape == (512, 2560)
    assert names["layers.4.self_attn.v_proj.weight"].shape == (512, 2560)


def test_gemma3_pattern_is_derived() -> None:
    assert read_anatomy(SMALL).full == [5]
    assert read_anatomy({"model_type": "gemma3", "text_config": SMALL}).full == [5]


@pytest.mark.parametrize(
    ("changes", "error", "match_"),
    [
        ({"model_type": "llama"}, Unsupported, "'llama' is not supported"),
        ({"hidden_size": 0}, BadCheckpoint, "'hidden_size' to be a positive number, found 0"),
        ({"num_hidden_layers": "7"}, BadCheckpoint, "'num_hidden_layers'"),
        ({"num_hidden_layers": 10**9}, BadCheckpoint, "'num_hidden_layers'"),
        ({"layer_types": ["sliding_attention"]}, BadCheckpoint, "must name 7 layers"),
        ({"layer_types": ["linear"] * 7}, BadCheckpoint, "linear"),
        ({"vocab_size": None}, BadCheckpoint, "vocab size to be a number, found None"),
    ],
)
def test_bad_configs(changes: dict[str, Any], error: type[Exception], match_: str) -> None:
    with pytest.raises(error, match=match_):
        read_anatomy(SMALL | changes)


def test_sharing_without_a_donor() -> None:
    with pytest.raises(BadCheckpoint, match="layer 0 shares K/V"):
        read_anatomy(E4B | {"num_kv_shared_layers": 42})


@pytest.mark.parametrize("shared", [-1, 43, "18", None])
def test_sharing_that_makes_no_sense(shared: object) -> None:
    with pytest.raises(BadCheckpoint, match="a value is missing or of the wrong kind"):
        read_anatomy(E4B | {"num_kv_shared_layers": shared})


def test_what_a_config_leaves_unsaid_is_what_transformers_takes_it_for() -> None:
    """Our defaults are those of the classes, so that a slice's config may spell them out."""
    from transformers import Gemma3TextConfig, Gemma4TextConfig
    from transformers.models.gemma4_unified.configuration_gemma4_unified import Gemma4UnifiedTextConfig

    stock = {
        "gemma3_text": Gemma3TextConfig(),
        "gemma4_text": Gemma4TextConfig(),
        "gemma4_unified_text": Gemma4UnifiedTextConfig(),
    }
    for family in FAMILIES:
        for model_type, config in stock.items():
            for key, value in family.defaults.get(model_type, {}).items():
                if key == "global_head_dim":
                    assert config.per_layer_config["full_attention"].head_dim == value
                elif hasattr(sliding := config.per_layer_config["sliding_attention"], key):
                    assert getattr(sliding, key) == value
                else:
                    assert (model_type, "per_layer_input" in key) == ("gemma4_unified_text", True)


def _copy(source: Path, target: Path, **config: Any) -> Path:
    shutil.copytree(source, target)
    path = target / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return target


def _match(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    match_tensors(checkpoint, read_anatomy(checkpoint.config))


def test_config_and_headers_must_agree(pico_gemma3: Path, tmp_path: Path) -> None:
    _match(pico_gemma3)
    with pytest.raises(BadCheckpoint, match=r"down_proj.*has shape \[32, 64\], .* calls for \[32, 128\]"):
        _match(_copy(pico_gemma3, tmp_path / "ffn", intermediate_size=128))
    with pytest.raises(BadCheckpoint, match=r"tensor 'model\.layers\.5\..*' is unknown"):
        _match(
            _copy(pico_gemma3, tmp_path / "less", num_hidden_layers=5, layer_types=["sliding_attention"] * 5)
        )
    with pytest.raises(
        BadCheckpoint, match=r"'layers\.6\..* and \d+ more called for by config\.json is missing"
    ):
        _match(_copy(pico_gemma3, tmp_path / "more", num_hidden_layers=7, layer_types=["full_attention"] * 7))
