"""Gemma 4 text models: two head sizes, shared K/V, per-layer embeddings (E2B, E4B), MoE (26B-A4B).

A layer from `num_hidden_layers - num_kv_shared_layers` on reads the K/V of its donor: the last earlier
layer of its own attention type that has K/V. Checkpoints may store K/V for such layers too; they are
never executed and never carried over.
"""

from collections.abc import Mapping
from typing import Any

from slices.families.gemma3 import layer_types
from slices.families.table import FULL, SLIDING, Family, Layer, Rule, Shape

SLICE_TYPE = "gemma4_slice"  # our own model_type, for slices that end on a sliding layer


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
    Rule("layers.{}.self_attn.k_proj.weight", ("kv", "hidden"), when=_owns_kv, dead_when=_shared),
    Rule("layers.{}.self_attn.k_norm.weight", ("head",), when=_owns_kv, dead_when=_shared),
    Rule(
        "layers.{}.self_attn.v_proj.weight",
        ("kv", "hidden"),
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
    if config.get("hidden_size_per_layer_input", 256):
        rules += _PER_LAYER_EMBEDDING
    if config.get("enable_moe_block"):
        rules += _EXPERTS
    return rules


def _shape(config: Mapping[str, Any]) -> Shape:
    return Shape(
        hidden=config["hidden_size"],
        vocab=config.get("vocab_size", 262144),
        ple_vocab=config.get("vocab_size_per_layer_input", 262144),
        ple=config.get("hidden_size_per_layer_input", 256),
        experts=config.get("num_experts") or 0,
        expert_ffn=config.get("moe_intermediate_size") or 0,
        sliding_window=config.get("sliding_window", 512),
    )


def overrides(config: Mapping[str, Any], types: list[str]) -> dict[int, dict[str, int]]:
    """What single layers override, by layer: as stored, else what transformers derives for full layers."""
    stored = config.get("per_layer_config")
    if stored is not None:
        return {int(key): dict(value) for key, value in stored.items()}
    derived: dict[str, int] = {"head_dim": config.get("global_head_dim") or 512}
    if config.get("attention_k_eq_v") and config.get("num_global_key_value_heads"):
        derived["num_key_value_heads"] = config["num_global_key_value_heads"]
    return {index: dict(derived) for index, kind in enumerate(types) if kind == FULL}


def _layers(config: Mapping[str, Any]) -> tuple[Layer, ...]:
    types = layer_types(config, last_full=config.get("model_type") != SLICE_TYPE)
    own = len(types) - config.get("num_kv_shared_layers", 0)
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
                head_dim=override.get("head_dim", config.get("head_dim", 256)),
                heads=config["num_attention_heads"],
                kv_heads=override.get("num_key_value_heads", config["num_key_value_heads"]),
                ffn=config["intermediate_size"] * (2 if shared and config.get("use_double_wide_mlp") else 1),
                donor=(donors[-1] if donors else -1) if shared else None,
                has_value=not (config.get("attention_k_eq_v") and kind == FULL),
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
        SLICE_TYPE: SLICE_TYPE,
    },
    architectures={
        "gemma4_text": "Gemma4ForCausalLM",
        "gemma4_unified_text": "Gemma4UnifiedForCausalLM",
        SLICE_TYPE: "Gemma4SliceForCausalLM",
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
    read_shape=_shape,
    read_layers=_layers,
    read_rules=_rules,
)
