"""Gemma 3 text models: sliding and full attention, no sharing, no per-layer embeddings."""

from collections.abc import Mapping
from typing import Any

from slices.families.table import FULL, SLIDING, WINDOW_FULL_ATTENTION, Family, Layer, ModelDims, Rule

SLICE_TYPES = {"gemma3_text": "gemma3_slice"}  # for slices whose full-attention layers are windowed
RULES = (
    Rule("embed_tokens.weight", ("vocab", "hidden"), "embedding"),
    Rule("norm.weight", ("hidden",)),
    Rule("layers.{}.input_layernorm.weight", ("hidden",)),
    Rule("layers.{}.post_attention_layernorm.weight", ("hidden",)),
    Rule("layers.{}.pre_feedforward_layernorm.weight", ("hidden",)),
    Rule("layers.{}.post_feedforward_layernorm.weight", ("hidden",)),
    Rule("layers.{}.self_attn.q_proj.weight", ("q", "hidden")),
    Rule("layers.{}.self_attn.k_proj.weight", ("kv", "hidden")),
    Rule("layers.{}.self_attn.v_proj.weight", ("kv", "hidden")),
    Rule("layers.{}.self_attn.o_proj.weight", ("hidden", "q")),
    Rule("layers.{}.self_attn.q_norm.weight", ("head",)),
    Rule("layers.{}.self_attn.k_norm.weight", ("head",)),
    Rule("layers.{}.mlp.gate_proj.weight", ("ffn", "hidden")),
    Rule("layers.{}.mlp.up_proj.weight", ("ffn", "hidden")),
    Rule("layers.{}.mlp.down_proj.weight", ("hidden", "ffn")),
)
DEFAULTS = {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 4096,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}  # the published 4B, 12B and 27B leave some of these unsaid


def _dims(config: Mapping[str, Any]) -> ModelDims:
    return ModelDims(
        hidden=config["hidden_size"], vocab=config["vocab_size"], sliding_window=config["sliding_window"]
    )


def layer_types(config: Mapping[str, Any], last_full: bool) -> list[str]:
    """The attention type of each layer: as listed, else every n-th is full (n = 6 unless stated)."""
    count = config["num_hidden_layers"]
    pattern = config.get("sliding_window_pattern", 6)
    types = config.get("layer_types") or [FULL if (i + 1) % pattern == 0 else SLIDING for i in range(count)]
    return [*types[:-1], FULL] if last_full and types else list(types)


def _layers(config: Mapping[str, Any]) -> tuple[Layer, ...]:
    return tuple(
        Layer(
            index=index,
            type=FULL if kind == FULL else SLIDING,
            head_dim=config["head_dim"],
            heads=config["num_attention_heads"],
            kv_heads=config["num_key_value_heads"],
            ffn=config["intermediate_size"],
            windowed=kind == FULL and bool(config.get(WINDOW_FULL_ATTENTION)),
        )
        for index, kind in enumerate(layer_types(config, last_full=False))
    )


GEMMA3 = Family(
    name="gemma3",
    model_types={
        "gemma3": "gemma3_text",
        "gemma3_text": "gemma3_text",
        **{ours: ours for ours in SLICE_TYPES.values()},
    },
    architectures={"gemma3_text": "Gemma3ForCausalLM", "gemma3_slice": "Gemma3SliceForCausalLM"},
    defaults={"gemma3_text": DEFAULTS, "gemma3_slice": DEFAULTS},
    prefixes=("model.language_model.", "language_model.model.", "model."),
    towers=("model.vision_tower.", "vision_tower.", "model.multi_modal_projector.", "multi_modal_projector."),
    tied=frozenset({"lm_head.weight", "language_model.lm_head.weight"}),
    read_dims=_dims,
    read_layers=_layers,
    read_rules=lambda config: RULES,
    slice_types=SLICE_TYPES,
    same_heads=True,
)
