"""Pico checkpoints: the real classes with random weights, small enough to cut and run in a second.

One of each shape of the families (`SHAPES`), text-only or inside a multimodal model, whole or in shards,
with or without the dead K/V that the published files hold.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slices.architecture.anatomy import read_anatomy
from slices.cut.pipeline import cut, plan_cut
from slices.cut.request import SliceRequest
from slices.manifest import Manifest
from slices.slice_classes import register
from slices.windowed_attention import cache_argument
from tests.slices.gguf_fixtures import tokenizer_json, write_gemma3

__all__ = [
    "IDS",
    "SHAPES",
    "add_dead_kv",
    "bypassed",
    "calm",
    "cut_exactly",
    "difference",
    "load",
    "logits",
    "shard",
    "tokenizer_json",
    "write_gemma3",
    "write_gemma4",
    "write_multimodal",
    "write_shape",
]
IDS = [2, *range(300, 340)]  # longer than the sliding window of 16
SLIDING, FULL = "sliding_attention", "full_attention"
SIX = [*[SLIDING] * 5, FULL]
_NO_PLE: dict[str, Any] = {
    "hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_global_key_value_heads": 1,
}  # fmt: skip
_MOE = {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16}
SHAPES: dict[str, dict[str, Any]] = {
    "e2b": {
        "layer_types": [*[SLIDING] * 4, FULL] * 3,
        "num_kv_shared_layers": 5,
        "use_double_wide_mlp": True,
    },
    "e4b": {"layer_types": SIX * 3, "num_kv_shared_layers": 6, "num_key_value_heads": 2},
    "12b": {"layer_types": SIX * 2, "model_type": "gemma4_unified_text", **_NO_PLE},
    "26b": {"layer_types": SIX * 2, **_NO_PLE, **_MOE},
    "31b": {"layer_types": SIX * 2, **_NO_PLE},
    "gemma3": {"layer_types": SIX * 2, "model_type": "gemma3_text"},
}


def write_shape(folder: Path, shape: str) -> Path:
    """Write the text-only pico of one of `SHAPES`."""
    settings = dict(SHAPES[shape])
    types = settings.pop("layer_types")
    if settings.pop("model_type", "") == "gemma3_text":
        return write_gemma3(folder, types, hidden_size=32, intermediate_size=64, head_dim=8)
    return write_gemma4(folder, types, unified=shape == "12b", **settings)


def write_gemma4(folder: Path, layer_types: Sequence[str], unified: bool = False, **changes: Any) -> Path:
    """Write a pico gemma4_text checkpoint with random weights, norms and layer scalars."""
    config, model = _text_classes(unified)
    return _save(model(config(**_settings(layer_types, changes))), folder)


def write_multimodal(folder: Path, shape: str) -> Path:
    """Write the pico of a shape inside its multimodal class, with one-layer towers."""
    import transformers
    from transformers.models.gemma4_unified import modeling_gemma4_unified as unified

    settings = dict(SHAPES[shape])
    types, kind = settings.pop("layer_types"), settings.pop("model_type", "")
    if kind == "gemma3_text":
        text = _gemma3_text(types)
        vision = transformers.SiglipVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            image_size=28, patch_size=14,
        )  # fmt: skip
        outer = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
        return _save(transformers.Gemma3ForConditionalGeneration(outer), folder)
    config, _ = _text_classes(bool(kind))
    text = config(**_settings(types, settings))
    if kind:
        return _save(unified.Gemma4UnifiedForConditionalGeneration(_unified(text)), folder)
    return _save(transformers.Gemma4ForConditionalGeneration(_gemma4(text)), folder)


def _text_classes(unified: bool) -> tuple[Any, Any]:
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig
    from transformers.models.gemma4_unified import configuration_gemma4_unified as configuration
    from transformers.models.gemma4_unified import modeling_gemma4_unified as modeling

    if unified:
        return configuration.Gemma4UnifiedTextConfig, modeling.Gemma4UnifiedForCausalLM
    return Gemma4TextConfig, Gemma4ForCausalLM


def _settings(layer_types: Sequence[str], changes: Mapping[str, Any]) -> dict[str, Any]:
    rows = len(tokenizer_json()["model"]["vocab"])
    settings: dict[str, Any] = {
        "vocab_size": rows, "vocab_size_per_layer_input": rows, "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": len(layer_types), "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 8,
        "global_head_dim": 16, "hidden_size_per_layer_input": 16, "sliding_window": 16,
        "max_position_embeddings": 256, "layer_types": list(layer_types), "final_logit_softcapping": 30.0,
    }  # fmt: skip
    return settings | dict(changes)


def _gemma3_text(layer_types: Sequence[str]) -> Any:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        vocab_size=len(tokenizer_json()["model"]["vocab"]), hidden_size=32, intermediate_size=64, head_dim=8,
        num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=len(layer_types), sliding_window=16,
        layer_types=list(layer_types),
    )  # fmt: skip


def _gemma4(text: Any) -> Any:
    from transformers import Gemma4AudioConfig, Gemma4Config, Gemma4VisionConfig

    vision = Gemma4VisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, position_embedding_size=16,
    )  # fmt: skip
    audio = Gemma4AudioConfig(
        hidden_size=16, num_attention_heads=2, num_hidden_layers=1, output_proj_dims=8,
        subsampling_conv_channels=[4, 4],
    )  # fmt: skip
    return Gemma4Config(text_config=text, vision_config=vision, audio_config=audio)


def _unified(text: Any) -> Any:
    from transformers.models.gemma4_unified import configuration_gemma4_unified as configuration

    vision = configuration.Gemma4UnifiedVisionConfig(
        patch_size=2, pooling_kernel_size=1, mm_embed_dim=8, mm_posemb_size=8, output_proj_dims=8
    )
    audio = configuration.Gemma4UnifiedAudioConfig(audio_embed_dim=8)
    return configuration.Gemma4UnifiedConfig(text_config=text, vision_config=vision, audio_config=audio)


def _save(model: Any, folder: Path) -> Path:
    """Give the model weights that tell every layer and row apart, and write it with a tokenizer."""
    import torch

    torch.manual_seed(11)
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if "layer_scalar" in name or "per_expert_scale" in name:
                weight.uniform_(0.5, 1.0)
            elif weight.is_floating_point() and not any(part in name for part in ("inv_freq", "scale")):
                weight.normal_(1.0 if "norm" in name else 0.0, 0.2)
    model.to(torch.bfloat16).save_pretrained(folder)
    text = json.dumps(tokenizer_json(), ensure_ascii=False)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    return folder


def calm(folder: Path) -> Path:
    """Let every layer change little: through 42 layers of noise the smallest rounding would grow to chaos.

    What is left still tells each layer, each donor and each row of the per-layer embeddings apart.
    """
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    for name, weight in tensors.items():
        if "layer_scalar" in name:
            weight.copy_(1 - (1 - weight) / 10)
        factor = 8.0 if "router.proj" in name else 0.3 if "q_norm" in name else 0.1
        if "post_" in name or "router.proj" in name or "q_norm" in name:
            weight.mul_(factor)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def shard(folder: Path, files: int = 3) -> Path:
    """Split a checkpoint's single file into shards with an index."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    weight_map = {name: f"model-{i % files}.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(weight_map.values()):
        part = {name: tensors[name].clone() for name in tensors if weight_map[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    return folder


def add_dead_kv(folder: Path) -> Path:
    """Add the K/V tensors of KV-sharing layers, of noise: nothing may ever read them."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    prefix = next(name for name in tensors if name.endswith("embed_tokens.weight")).removesuffix(
        "embed_tokens.weight"
    )
    anatomy = read_anatomy(json.loads((folder / "config.json").read_text()))
    for name, tensor in anatomy.tensors.items():
        if tensor.dead:
            tensors[prefix + name] = torch.randn(tensor.shape).to(torch.bfloat16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load(folder: Path) -> Any:
    """The checkpoint in float32, as the Auto classes give it once ours are registered."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)  # a pico's matrices are too small to share out
    register()
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    assert not any(report.values()), report  # nothing missing, nothing left over
    return model.eval()


def logits(model: Any, ids: Sequence[int] = IDS) -> Any:
    """Logits of every position, and of a cached run that takes the last 5 tokens one at a time."""
    import torch

    tokens = torch.tensor([list(ids)])
    with torch.inference_mode():
        whole = model(tokens).logits[0]
        cache = model(tokens[:, :-5], use_cache=True)
        steps = [cache.logits[0, -1]]
        name = cache_argument(model)
        past = cache[name]
        for position in range(len(ids) - 5, len(ids) - 1):
            step = model(tokens[:, position : position + 1], use_cache=True, **{name: past})
            steps.append(step.logits[0, -1])
    return whole, torch.stack(steps)


def cut_exactly(request: SliceRequest) -> Manifest:
    """Cut, and hold the planned size against what was written, to the byte."""
    _, plan, _ = plan_cut(request, measure=False)
    made = cut(request)
    files = [*request.target.glob("*.safetensors"), *request.target.glob("*.index.json")]
    assert plan.nbytes == made.bytes == sum(file.stat().st_size for file in files)
    assert plan.parameters == made.parameters
    return made


def difference(model: Any, expected: Any) -> float:
    """The largest difference of the model's logits from those expected, prefill and cached."""
    found = logits(model)
    return max(
        float((ours - theirs).abs().max().item()) for ours, theirs in zip(found, expected, strict=True)
    )


@contextmanager
def bypassed(model: Any, kept: Sequence[int]) -> Iterator[Any]:
    """The parent with the other layers handing their input on, which is what a slice must equal.

    They still run, for their side effect: transformers reads the length of the past off layer 0.
    """
    layers = _decoder(model).layers
    dropped = [index for index in range(len(layers)) if index not in kept]
    for index in dropped:
        layers[index].forward = _handing_on(layers[index].forward)
    try:
        yield model
    finally:
        for index in dropped:
            del layers[index].forward


def _decoder(model: Any) -> Any:
    return getattr(model.model, "language_model", model.model)


def _handing_on(forward: Any) -> Any:
    def run(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        forward(hidden_states.clone(), *args, **kwargs)  # a Gemma 4 layer scales in place
        return hidden_states

    return run
