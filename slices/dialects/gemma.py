"""What Gemma 3 and Gemma 4 share in llama.cpp: tensor names, inexpressible settings, rotary parameters."""

from collections.abc import Mapping
from typing import Any

from slices.errors import Unsupported
from slices.families.table import SLIDING

EMBEDDING: Mapping[str, str] = {"embed_tokens.weight": "token_embd.weight"}
NAMES: Mapping[str, str] = {
    "norm.weight": "output_norm.weight",
    "layers.{}.input_layernorm.weight": "blk.{}.attn_norm.weight",
    "layers.{}.self_attn.q_proj.weight": "blk.{}.attn_q.weight",
    "layers.{}.self_attn.q_norm.weight": "blk.{}.attn_q_norm.weight",
    "layers.{}.self_attn.k_proj.weight": "blk.{}.attn_k.weight",
    "layers.{}.self_attn.k_norm.weight": "blk.{}.attn_k_norm.weight",
    "layers.{}.self_attn.v_proj.weight": "blk.{}.attn_v.weight",
    "layers.{}.self_attn.o_proj.weight": "blk.{}.attn_output.weight",
    "layers.{}.post_attention_layernorm.weight": "blk.{}.post_attention_norm.weight",
    "layers.{}.pre_feedforward_layernorm.weight": "blk.{}.ffn_norm.weight",
    "layers.{}.mlp.gate_proj.weight": "blk.{}.ffn_gate.weight",
    "layers.{}.mlp.up_proj.weight": "blk.{}.ffn_up.weight",
    "layers.{}.mlp.down_proj.weight": "blk.{}.ffn_down.weight",
    "layers.{}.post_feedforward_layernorm.weight": "blk.{}.post_ffw_norm.weight",
}
EXPRESSIBLE: Mapping[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "hidden_activation": ("gelu_pytorch_tanh", None),
    "tie_word_embeddings": (True, None),
}


def refuse_settings(config: Mapping[str, Any], expected: Mapping[str, tuple[Any, ...]], arch: str) -> None:
    """Refuse a config that says of a key other than what it is expected to.

    Raises:
        Unsupported: llama.cpp's `arch` cannot express it.
    """
    for key, allowed in expected.items():
        if config.get(key) not in allowed:
            raise Unsupported(
                f"config.json: {key} is {config[key]!r}, which llama.cpp's {arch} cannot express "
                f"(expected {allowed[0]!r}); serve this slice in torch"
            )


def rope_parameters(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The rotary settings of an attention type, from today's config layout or the one before."""
    stated = config.get("rope_parameters") or {}
    if isinstance(stated.get(kind), Mapping):
        return {"rope_theta": 10_000.0 if kind == SLIDING else 1_000_000.0, **stated[kind]}
    if kind == SLIDING:
        return {"rope_theta": config.get("rope_local_base_freq", 10_000.0)}
    scaling = config.get("rope_scaling") or stated
    older = {"rope_type": scaling["type"]} if "type" in scaling else {}
    return {"rope_theta": config.get("rope_theta", 1_000_000.0), **older, **scaling}
