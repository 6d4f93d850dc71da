"""Gemma 3 in llama.cpp: norms are stored with their 1 added, the attention types as a list of bools.

llama.cpp takes any list of types, all sliding or all full included; without one it would take every
sixth layer for full, whatever the slice kept.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from slices.architecture.anatomy import Anatomy
from slices.dialects.gemma import EMBEDDING, EXPRESSIBLE, NAMES, refuse_settings, rope_parameters
from slices.dialects.table import Blocks, Dialect, Floats
from slices.errors import Unsupported
from slices.families.table import FULL, SLIDING

if TYPE_CHECKING:
    import gguf


_EXPRESSIBLE: Mapping[str, tuple[Any, ...]] = {
    **EXPRESSIBLE,
    "attn_logit_softcapping": (None,),
    "use_bidirectional_attention": (False, None),
}


def _gemma3_describe(writer: "gguf.GGUFWriter", anatomy: Anatomy, blocks: Blocks) -> None:
    config, layer = anatomy.config, anatomy.layers[0]
    refuse_settings(config, _EXPRESSIBLE, "gemma3")
    writer.add_context_length(config.get("max_position_embeddings", 131072))
    writer.add_embedding_length(anatomy.dims.hidden)
    writer.add_block_count(len(anatomy.layers))
    writer.add_feed_forward_length(layer.ffn)
    writer.add_head_count(layer.heads)
    writer.add_head_count_kv(layer.kv_heads)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_key_length(layer.head_dim)
    writer.add_value_length(layer.head_dim)
    _gemma3_rope(writer, anatomy)
    if anatomy.sliding:
        writer.add_sliding_window(anatomy.dims.sliding_window)
        writer.add_sliding_window_pattern([each.type == SLIDING for each in anatomy.layers])
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])


def _gemma3_rope(writer: "gguf.GGUFWriter", anatomy: Anatomy) -> None:
    """Full layers may have their positions scaled, sliding layers may not: llama.cpp has no field for it."""
    full, sliding = (rope_parameters(anatomy.config, kind) for kind in (FULL, SLIDING))
    if anatomy.sliding and sliding.get("rope_type", "default") != "default":
        raise Unsupported(
            f"layers {anatomy.sliding}: scaled positions on sliding layers cannot be written to a GGUF"
        )
    kind = full.get("rope_type", "default")
    if anatomy.full and kind not in ("default", "linear"):
        raise Unsupported(
            f"layers {anatomy.full}: positions scaled by {kind!r} cannot be written to a gemma3 GGUF"
        )
    writer.add_rope_freq_base(full["rope_theta"])
    writer.add_rope_freq_base_swa(sliding["rope_theta"])
    if anatomy.full and kind == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(full["factor"])


def _gemma3_adjust(name: str, values: Floats, anatomy: Anatomy) -> Floats:
    """Gemma 3 multiplies by 1 + weight. The query norm also takes up what llama.cpp's scale differs by."""
    shifted = values + np.float32(1)
    if not name.endswith("q_norm.weight"):
        return shifted
    layer, count = anatomy.layers[0], len(anatomy.layers)
    theirs = anatomy.dims.hidden // layer.heads if count == 62 else layer.head_dim  # 62 layers: "27B"
    ours = anatomy.config.get("query_pre_attn_scalar", 256)
    return shifted if ours == theirs else shifted * np.float32(math.sqrt(theirs / ours))


GEMMA3 = Dialect(
    arch="gemma3",
    names={**EMBEDDING, **NAMES},
    describe=_gemma3_describe,
    adjust=_gemma3_adjust,
    residual_norms=frozenset(
        {
            "norm.weight",
            "layers.{}.input_layernorm.weight",
            "layers.{}.pre_feedforward_layernorm.weight",
        }
    ),
)
