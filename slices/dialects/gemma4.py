"""Gemma 4 in llama.cpp: two head sizes, K/V by position, per-layer embeddings, MoE.

Norms are stored as they are. `rope_freqs` says which pairs of a full layer's head are turned; it may only
be there where a full layer is. Where identity layers go is in `slices.dialects.identity_layers`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from slices.architecture.anatomy import Anatomy
from slices.dialects.gemma import EMBEDDING, EXPRESSIBLE, NAMES, refuse_settings, rope_parameters
from slices.dialects.identity_layers import add_identity_layers
from slices.dialects.table import Blocks, Dialect, Floats
from slices.errors import Unsupported
from slices.families.table import FULL, SLIDING

if TYPE_CHECKING:
    import gguf

_NEVER = np.float32(1e30)  # a divisor of the frequency that leaves a pair unturned
_TURNING = ("default", "linear", "proportional")
_EXPRESSIBLE: Mapping[str, tuple[Any, ...]] = {
    **EXPRESSIBLE,
    "use_bidirectional_attention": (None, False, "vision"),
}


def _gemma4_describe(writer: "gguf.GGUFWriter", anatomy: Anatomy, blocks: Blocks) -> None:
    config, shape = anatomy.config, anatomy.dims
    refuse_settings(config, _EXPRESSIBLE, "gemma4")
    if shape.ple and shape.ple_vocab != shape.vocab:
        raise Unsupported(
            f"the embedding has {shape.vocab} rows and the per-layer embeddings {shape.ple_vocab}, which "
            "llama.cpp cannot express; serve this slice in torch"
        )
    writer.add_context_length(config.get("max_position_embeddings", 131072))
    writer.add_embedding_length(shape.hidden)
    writer.add_embedding_length_per_layer_input(shape.ple)
    writer.add_block_count(len(blocks))
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    _attention(writer, anatomy, blocks)
    _rope(writer, anatomy)
    if shape.experts:
        _experts(writer, anatomy)


def _attention(writer: "gguf.GGUFWriter", anatomy: Anatomy, blocks: Blocks) -> None:
    layers = [block.layer for block in blocks]
    writer.add_feed_forward_length(_one_or_all([layer.ffn for layer in layers]))
    writer.add_head_count(_one_or_all([layer.heads for layer in layers]))
    writer.add_head_count_kv(_one_or_all([layer.kv_heads for layer in layers]))
    full, sliding = (_head(anatomy, kind) for kind in (FULL, SLIDING))
    writer.add_key_length(full)
    writer.add_value_length(full)
    writer.add_key_length_swa(sliding)
    writer.add_value_length_swa(sliding)
    writer.add_rope_dimension_count(full)
    writer.add_rope_dimension_count_swa(sliding)
    writer.add_sliding_window(anatomy.dims.sliding_window)
    writer.add_sliding_window_pattern([layer.type == SLIDING for layer in layers])
    writer.add_shared_kv_layers(sum(layer.shared for layer in layers))


def _one_or_all(values: Sequence[int]) -> int | list[int]:
    return values[0] if len(set(values)) == 1 else list(values)


def _head(anatomy: Anatomy, kind: str) -> int:
    """The head size of an attention type; of one without a layer, what the config says of it."""
    sizes = {layer.head_dim for layer in anatomy.layers if layer.type == kind}
    if len(sizes) > 1:
        raise Unsupported(f"{kind} layers with heads of {sorted(sizes)} cannot be written to a gemma4 GGUF")
    return next(iter(sizes), int(anatomy.config["global_head_dim" if kind == FULL else "head_dim"] or 512))


def _rope(writer: "gguf.GGUFWriter", anatomy: Anatomy) -> None:
    full, sliding = (rope_parameters(anatomy.config, kind) for kind in (FULL, SLIDING))
    plain = sliding.get("rope_type", "default") == "default" and sliding.get("partial_rotary_factor", 1) == 1
    if anatomy.sliding and not plain:
        raise Unsupported(
            f"layers {anatomy.sliding}: scaled positions on sliding layers cannot be written to a GGUF"
        )
    if anatomy.full and full.get("rope_type", "default") not in _TURNING:
        raise Unsupported(
            f"layers {anatomy.full}: positions scaled by {full['rope_type']!r} cannot be written to a "
            "gemma4 GGUF"
        )
    writer.add_rope_freq_base(full["rope_theta"])
    writer.add_rope_freq_base_swa(sliding["rope_theta"])


def _experts(writer: "gguf.GGUFWriter", anatomy: Anatomy) -> None:
    writer.add_expert_count(anatomy.dims.experts)
    writer.add_expert_used_count(int(anatomy.config["top_k_experts"]))
    writer.add_expert_feed_forward_length(anatomy.dims.expert_ffn)


def _gemma4_vectors(anatomy: Anatomy, blocks: Blocks) -> dict[str, Floats]:
    """`rope_freqs`, shape (head / 2,): what each pair's frequency is divided by on full layers."""
    if not anatomy.full:
        return {}
    full = rope_parameters(anatomy.config, FULL)
    partial = full.get("partial_rotary_factor", 1.0) if full.get("rope_type") == "proportional" else 1.0
    head = _head(anatomy, FULL)
    divisors = np.full(head // 2, _NEVER)
    divisors[: int(partial * head // 2)] = full.get("factor", 1.0)
    return {"rope_freqs.weight": divisors}


def _gemma4_adjust(name: str, values: Floats, anatomy: Anatomy) -> Floats:
    return values


GEMMA4 = Dialect(
    arch="gemma4",
    names={
        **EMBEDDING,
        "embed_tokens_per_layer.weight": "per_layer_token_embd.weight",
        "per_layer_model_projection.weight": "per_layer_model_proj.weight",
        "per_layer_projection_norm.weight": "per_layer_proj_norm.weight",
        **NAMES,
        "layers.{}.per_layer_input_gate.weight": "blk.{}.inp_gate.weight",
        "layers.{}.per_layer_projection.weight": "blk.{}.proj.weight",
        "layers.{}.post_per_layer_input_norm.weight": "blk.{}.post_norm.weight",
        "layers.{}.layer_scalar": "blk.{}.layer_output_scale.weight",
        "layers.{}.router.proj.weight": "blk.{}.ffn_gate_inp.weight",
        "layers.{}.router.scale": "blk.{}.ffn_gate_inp.scale",
        "layers.{}.router.per_expert_scale": "blk.{}.ffn_down_exps.scale",
        "layers.{}.experts.gate_up_proj": "blk.{}.ffn_gate_up_exps.weight",
        "layers.{}.experts.down_proj": "blk.{}.ffn_down_exps.weight",
        "layers.{}.post_feedforward_layernorm_1.weight": "blk.{}.post_ffw_norm_1.weight",
        "layers.{}.post_feedforward_layernorm_2.weight": "blk.{}.post_ffw_norm_2.weight",
        "layers.{}.pre_feedforward_layernorm_2.weight": "blk.{}.pre_ffw_norm_2.weight",
    },
    describe=_gemma4_describe,
    adjust=_gemma4_adjust,
    arrange=add_identity_layers,
    vectors=_gemma4_vectors,
    writes_merges=True,
)
