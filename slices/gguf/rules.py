"""What llama.cpp wants of each architecture's GGUF, as tables: settings with their ranges, tensors with axes.

Read off llama.cpp 0.3.36's loaders, not taken from `slices.dialects`: a check that shared the exporter's
tables would share its mistakes. Data only; `slices.gguf.check` applies it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

MOST_LAYERS = 512  # llama.cpp's LLAMA_MAX_LAYERS, whose excess ends the process
MOST_EXPERTS = 512


@dataclass(frozen=True)
class Number:
    """A setting `<architecture>.<key>` and where it must lie, bounds included."""

    low: float
    high: float
    kind: str = "u32"
    required: bool = False
    per_layer: bool = False  # may also be an array with a value for each layer


@dataclass(frozen=True)
class Tensor:
    """A tensor's axes by name, contiguous first, and where it must be.

    `when`: "always"; "maybe"; "own", in layers with K/V of their own, and maybe in the others; "value", the
    same for sliding layers, where full ones may take the keys for the values; "ple", with per-layer
    embeddings; "full", where there is a full layer; "moe", in layers with a router, "moe?" maybe.
    """

    axes: tuple[str, ...]
    when: str = "always"


@dataclass(frozen=True)
class Rules:
    """Contents of a GGUF by architecture; `forbidden_keys` change how llama.cpp runs it, or end it."""

    numbers: Mapping[str, Number]
    tensors: Mapping[str, Tensor]  # `{}` is the layer's number
    forbidden_keys: tuple[str, ...]


_TINY, _HUGE = 1e-30, 1e30  # "above zero", and far beyond what any model says
_SIZE = 2**20
ANY: Mapping[str, Number] = {
    "context_length": Number(1, 2**24, required=True),
    "embedding_length": Number(1, _SIZE, required=True),
    "block_count": Number(1, MOST_LAYERS, required=True),
    "feed_forward_length": Number(0, 2**24, per_layer=True),
    "attention.head_count": Number(0, 2**16, per_layer=True),
    "attention.head_count_kv": Number(0, 2**16, per_layer=True),
    "attention.key_length": Number(1, 2**16),
    "attention.value_length": Number(1, 2**16),
    "attention.layer_norm_rms_epsilon": Number(_TINY, 1, "f32"),
    "attention.sliding_window": Number(0, 2**24),
    "rope.dimension_count": Number(0, 2**16),
    "rope.freq_base": Number(_TINY, _HUGE, "f32"),
    "rope.scaling.factor": Number(_TINY, _HUGE, "f32"),
    "expert_count": Number(0, MOST_EXPERTS),
    "expert_used_count": Number(0, MOST_EXPERTS, per_layer=True),
    "expert_group_count": Number(0, MOST_EXPERTS),
    "expert_group_used_count": Number(0, MOST_EXPERTS),
}
_GEMMA: Mapping[str, Number] = {
    **ANY,
    "feed_forward_length": Number(low=1, high=2**24, required=True, per_layer=True),
    "attention.head_count": Number(low=1, high=2**16, required=True, per_layer=True),
    "attention.head_count_kv": Number(low=1, high=2**16, required=True, per_layer=True),
    "attention.key_length": Number(2, 2**16, required=True),
    "attention.value_length": Number(2, 2**16, required=True),
    "attention.layer_norm_rms_epsilon": Number(low=_TINY, high=1, kind="f32", required=True),
    "attention.sliding_window": Number(1, 2**24),
    "rope.dimension_count": Number(2, 2**16),
    "rope.freq_base_swa": Number(_TINY, _HUGE, "f32"),
    "final_logit_softcapping": Number(_TINY, _HUGE, "f32"),
}
_BARRED = (
    "attention.causal",
    "pooling_type",
    "classifier.output_labels",
    "nextn_predict_layers",
    "embedding_length_out",
    "expert_group_count",
    "expert_group_used_count",
    "rope.dimension_sections",
)
_NOT_GEMMA3 = (
    "attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa",
    "attention.shared_kv_layers", "expert_count", "expert_used_count", "embedding_length_per_layer_input",
)  # fmt: skip
_DENSE: Mapping[str, Tensor] = {
    "token_embd.weight": Tensor(("hidden", "vocabulary")),
    "output.weight": Tensor(("hidden", "vocabulary"), "maybe"),
    "output_norm.weight": Tensor(("hidden",)),
    "blk.{}.attn_norm.weight": Tensor(("hidden",)),
    "blk.{}.attn_q.weight": Tensor(("hidden", "queries")),
    "blk.{}.attn_k.weight": Tensor(("hidden", "keys"), "own"),
    "blk.{}.attn_v.weight": Tensor(("hidden", "keys"), "own"),
    "blk.{}.attn_output.weight": Tensor(("queries", "hidden")),
    "blk.{}.attn_q_norm.weight": Tensor(("head",)),
    "blk.{}.attn_k_norm.weight": Tensor(("head",), "own"),
    "blk.{}.post_attention_norm.weight": Tensor(("hidden",)),
    "blk.{}.ffn_norm.weight": Tensor(("hidden",)),
    "blk.{}.ffn_gate.weight": Tensor(("hidden", "ffn")),
    "blk.{}.ffn_up.weight": Tensor(("hidden", "ffn")),
    "blk.{}.ffn_down.weight": Tensor(("ffn", "hidden")),
    "blk.{}.post_ffw_norm.weight": Tensor(("hidden",)),
}
_GEMMA4_TENSORS: Mapping[str, Tensor] = {
    **_DENSE,
    "blk.{}.attn_v.weight": Tensor(("hidden", "keys"), "value"),
    "blk.{}.layer_output_scale.weight": Tensor(("one",), "maybe"),
    "rope_freqs.weight": Tensor(("pairs",), "full"),
    "per_layer_token_embd.weight": Tensor(("all_ple", "vocabulary"), "ple"),
    "per_layer_model_proj.weight": Tensor(("hidden", "all_ple"), "ple"),
    "per_layer_proj_norm.weight": Tensor(("ple",), "ple"),
    "blk.{}.inp_gate.weight": Tensor(("hidden", "ple"), "ple"),
    "blk.{}.proj.weight": Tensor(("ple", "hidden"), "ple"),
    "blk.{}.post_norm.weight": Tensor(("hidden",), "ple"),
    "blk.{}.ffn_gate_inp.weight": Tensor(("hidden", "experts"), "moe"),
    "blk.{}.ffn_gate_inp.scale": Tensor(("hidden",), "moe"),
    "blk.{}.pre_ffw_norm_2.weight": Tensor(("hidden",), "moe"),
    "blk.{}.post_ffw_norm_1.weight": Tensor(("hidden",), "moe"),
    "blk.{}.post_ffw_norm_2.weight": Tensor(("hidden",), "moe"),
    "blk.{}.ffn_gate_up_exps.weight": Tensor(("hidden", "expert_gate_up", "experts"), "moe?"),
    "blk.{}.ffn_gate_exps.weight": Tensor(("hidden", "expert_ffn", "experts"), "moe?"),
    "blk.{}.ffn_up_exps.weight": Tensor(("hidden", "expert_ffn", "experts"), "moe?"),
    "blk.{}.ffn_down_exps.weight": Tensor(("expert_ffn", "hidden", "experts"), "moe"),
    "blk.{}.ffn_down_exps.scale": Tensor(("experts",), "moe?"),
}
RULES: Mapping[str, Rules] = {
    "gemma3": Rules(_GEMMA, _DENSE, (*_BARRED, *_NOT_GEMMA3)),
    "gemma4": Rules(
        {
            **_GEMMA,
            "attention.sliding_window": Number(1, 2**24, required=True),
            "attention.shared_kv_layers": Number(0, MOST_LAYERS - 1),
            "attention.key_length_swa": Number(2, 2**16, required=True),
            "attention.value_length_swa": Number(2, 2**16, required=True),
            "rope.dimension_count_swa": Number(2, 2**16),
            "embedding_length_per_layer_input": Number(0, _SIZE, required=True),
            "expert_used_count": Number(1, MOST_EXPERTS, per_layer=True),
            "expert_feed_forward_length": Number(1, 2**24),
        },
        _GEMMA4_TENSORS,
        _BARRED,
    ),
}
# ggml types that a vector may have, and those that a matrix may: floats and whatever llama.cpp quantizes to
VECTORS = frozenset({0})
MATRICES = frozenset({0, 1, 2, 3, 6, 7, 8, *range(10, 15), *range(16, 24), 29, 30, 34, 35, 39, 41})
FLOATS = frozenset({0, 1, 30})
# those that a matrix has in no architecture: whole numbers, doubles, and forms for a moment's use
NO_MATRIX = frozenset({9, 15, *range(24, 29)})
