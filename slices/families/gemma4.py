"""Gemma 4 text models: two head sizes, shared K/V, per-layer embeddings (E2B, E4B), keys that serve as
values (12B, 31B), MoE (26B-A4B).

A layer from `num_hidden_layers - num_kv_shared_layers` on reads the K/V of its donor: the last earlier
layer of its own attention type that has K/V. Checkpoints may store K/V for such layers too; they are
never executed and never carried over.
"""

from collections.abc import Mapping
from typing import Any

from slices.errors import Unsupported
from slices.families.gemma3 import layer_types
from slices.families.table import FULL, SLIDING, WINDOW_FULL_ATTENTION, Family, Layer, ModelDims, Rule

SLICE_TYPES = {  # our own model_types, for slices that end on a sliding layer or whose full ones are windowed
    "gemma4_text": "gemma4_slice",
    "gemma4_unified_text": "gemma4_unified_slice",
}
_OVERRIDABLE = {"head_dim", "num_key_value_heads"}  # what the classes of transformers read a layer
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 262144,
    "vocab_size_per_layer_input": 262144,
    "hidden_size_per_layer_input": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "global_head_dim": 512,
    "num_kv_shared_layers": 0,
    "sliding_window": 512,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
_UNIFIED_DEFAULTS = _DEFAULTS | {"hidden_size_per_layer_input": 0, "sliding_window": 1024}


def _owns_kv(layer: Layer) -> bool:
    return not layer.shared


def _shared(layer: Layer) -> bool:
    return layer.shared


_DENSE = (
    Rule("embed_tokens.weight", ("vocab", "hidden"), "embedding"),
    Rule("norm.weight", ("hidden",)),
    Rule("layers.{}.input_layernorm.weight", ("hidden",)),
    Rule("layers.{}.post_attention_layernorm.weight", ("hidden",)),
    Rule("layers.{}.pre_feedforward_layernorm.weight", ("hidden",)),
    Rule("layers.{}.post_feedforward_layernorm.weight", ("hidden",)),
    Rule("layers.{}.layer_scalar", ("one",)),
    Rule("layers.{}.self_attn.q_proj.weight", ("q", "hidden")),
    Rule("layers.{}.self_attn.q_norm.weight", ("head",)),
    Rule("layers.{}.self_attn.o_proj.weight", ("hidden", "q")),
    Rule(name="layers.{}.self_attn.k_proj.weight", axes=("kv", "hidden"), when=_owns_kv, dead_when=_shared),
    Rule(name="layers.{}.self_attn.k_norm.weight", axes=("head",), when=_owns_kv, dead_when=_shared),
    Rule(
        name="layers.{}.self_attn.v_proj.weight",
        axes=("kv", "hidden"),
        when=lambda layer: layer.has_value and not layer.shared,
        dead_when=lambda layer: layer.has_value and layer.shared,
    ),
    Rule("layers.{}.mlp.gate_proj.weight", ("ffn", "hidden")),
    Rule("layers.{}.mlp.up_proj.weight", ("ffn", "hidden")),
    Rule("layers.{}.mlp.down_proj.weight", ("hidden", "ffn")),
)
_PER_LAYER_EMBEDDING = (
    Rule("embed_tokens_per_layer.weight", ("ple_vocab", "ple_layers"), "per_layer_embedding"),
    Rule("per_layer_model_projection.weight", ("ple_layers", "hidden")),
    Rule("per_layer_projection_norm.weight", ("ple",)),
    Rule("layers.{}.per_layer_input_gate.weight", ("ple", "hidden")),
    Rule("layers.{}.per_layer_projection.weight", ("hidden", "ple")),
    Rule("layers.{}.post_per_layer_input_norm.weight", ("hidden",)),
)
_EXPERTS = (
    Rule("layers.{}.router.proj.weight", ("experts", "hidden")),
    Rule("layers.{}.router.scale", ("hidden",)),
    Rule("layers.{}.router.per_expert_scale", ("experts",)),
    Rule("layers.{}.experts.gate_up_proj", ("experts", "expert_ffn2", "hidden")),
    Rule("layers.{}.experts.down_proj", ("experts", "hidden", "expert_ffn")),
    Rule("layers.{}.post_feedforward_layernorm_1.weight", ("hidden",)),
    Rule("layers.{}.post_feedforward_layernorm_2.weight", ("hidden",)),
    Rule("layers.{}.pre_feedforward_layernorm_2.weight", ("hidden",)),
)


def _rules(config: Mapping[str, Any]) -> tuple[Rule, ...]:
    rules: tuple[Rule, ...] = _DENSE
    if config["hidden_size_per_layer_input"]:
        rules += _PER_LAYER_EMBEDDING
    if config.get("enable_moe_block"):
        rules += _EXPERTS
    return rules


def _dims(config: Mapping[str, Any]) -> ModelDims:
    return ModelDims(
        hidden=config["hidden_size"],
        vocab=config["vocab_size"],
        ple_vocab=config["vocab_size_per_layer_input"] or 0,
        ple=config["hidden_size_per_layer_input"] or 0,
        experts=config.get("num_experts") or 0,
        expert_ffn=config.get("moe_intermediate_size") or 0,
        sliding_window=config["sliding_window"],
    )


def overrides(config: Mapping[str, Any], types: list[str]) -> dict[int, dict[str, int]]:
    """Config overrides by layer: as stored, else as transformers derives them for full-attention layers.

    Raises:
        Unsupported: a layer overrides what the classes of transformers read once for all layers.
    """
    stored = config.get("per_layer_config")
    if stored is not None:
        for key, value in stored.items():
            if not set(value) <= _OVERRIDABLE:
                raise Unsupported(
                    f"config.json: per_layer_config of layer {key} sets {sorted(set(value) - _OVERRIDABLE)}; "
                    f"only {sorted(_OVERRIDABLE)} are known to differ by layer"
                )
        return {int(key): dict(value) for key, value in stored.items()}
    derived: dict[str, int] = {"head_dim": config["global_head_dim"] or 512}
    if config.get("attention_k_eq_v") and config.get("num_global_key_value_heads"):
        derived["num_key_value_heads"] = config["num_global_key_value_heads"]
    return {index: dict(derived) for index, kind in enumerate(types) if kind == FULL}


def _layers(config: Mapping[str, Any]) -> tuple[Layer, ...]:
    types = layer_types(config, last_full=config.get("model_type") not in SLICE_TYPES.values())
    own = len(types) - config["num_kv_shared_layers"]
    if not 0 <= own <= len(types):
        raise ValueError(f"num_kv_shared_layers is {config['num_kv_shared_layers']} of {len(types)} layers")
    special = overrides(config, types)
    layers: list[Layer] = []
    for index, kind in enumerate(types):
        shared = index >= own
        donors = [i for i in range(own) if types[i] == kind]
        override = special.get(index, {})
        layers.append(
            Layer(
                index=index,
                type=FULL if kind == FULL else SLIDING,
                head_dim=override.get("head_dim", config["head_dim"]),
                heads=config["num_attention_heads"],
                kv_heads=override.get("num_key_value_heads", config["num_key_value_heads"]),
                ffn=config["intermediate_size"] * (2 if shared and config.get("use_double_wide_mlp") else 1),
                donor=(donors[-1] if donors else -1) if shared else None,
                has_value=not (config.get("attention_k_eq_v") and kind == FULL),
                windowed=kind == FULL and bool(config.get(WINDOW_FULL_ATTENTION)),
            )
        )
    return tuple(layers)


GEMMA4 = Family(
    name="gemma4",
    model_types={
        "gemma4": "gemma4_text",
        "gemma4_text": "gemma4_text",
        "gemma4_unified": "gemma4_unified_text",
        "gemma4_unified_text": "gemma4_unified_text",
        **{ours: ours for ours in SLICE_TYPES.values()},
    },
    architectures={
        "gemma4_text": "Gemma4ForCausalLM",
        "gemma4_unified_text": "Gemma4UnifiedForCausalLM",
        "gemma4_slice": "Gemma4SliceForCausalLM",
        "gemma4_unified_slice": "Gemma4UnifiedSliceForCausalLM",
    },
    defaults={
        "gemma4_text": _DEFAULTS,
        "gemma4_unified_text": _UNIFIED_DEFAULTS,
        "gemma4_slice": _DEFAULTS,
        "gemma4_unified_slice": _UNIFIED_DEFAULTS,
    },
    prefixes=("model.language_model.", "model."),
    towers=tuple(
        f"model.{tower}."
        for tower in (
            "vision_tower",
            "audio_tower",
            "embed_vision",
            "embed_audio",
            "vision_embedder",
            "audio_embedder",
        )
    ),
    tied=frozenset({"lm_head.weight"}),
    read_dims=_dims,
    read_layers=_layers,
    read_rules=_rules,
    forced_full_types=SLICE_TYPES,
    slice_types=SLICE_TYPES,
)
