"""A small model with the exact structure of Gemma 4 E4B's text side: only widths and rows differ.

42 layers, five sliding to a full one; the last 18 share K/V with layers 22 and 23; per-layer embeddings;
heads twice as wide in full layers; an FFN of four times the hidden size; tied embeddings; a window smaller
than the context, so that full attention has something of its own to do. Trains nothing.
"""

from dataclasses import dataclass
from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"
LAYERS, SHARED = 42, 18


@dataclass(frozen=True)
class Sizes:
    """Everything that decides the weights, beside the text."""

    hidden: int = 128
    rows: int = 4096
    context: int = 256  # tokens in a row of training
    window: int = 64
    ple: int = 32
    heads: int = 4
    kv_heads: int = 1
    head: int = 32  # of sliding layers; full layers' heads are twice as wide
    batch: int = 8
    steps: int = 1200
    rate: float = 2e-3
    warmup: int = 60
    seed: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that all steps read."""
        return self.steps * self.batch * self.context


ON_A_GPU = Sizes(
    hidden=192, rows=8192, context=512, window=128, ple=16, heads=6, kv_heads=2, head=32, batch=32,
    steps=2500, rate=1.5e-3, warmup=150,
)  # fmt: skip


def settings(sizes: Sizes) -> dict[str, Any]:
    """The config, as transformers' Gemma4TextConfig takes it."""
    return {
        "vocab_size": sizes.rows, "vocab_size_per_layer_input": sizes.rows, "hidden_size": sizes.hidden,
        "intermediate_size": 4 * sizes.hidden, "num_hidden_layers": LAYERS,
        "num_attention_heads": sizes.heads, "num_key_value_heads": sizes.kv_heads, "head_dim": sizes.head,
        "global_head_dim": 2 * sizes.head, "hidden_size_per_layer_input": sizes.ple,
        "num_kv_shared_layers": SHARED, "use_double_wide_mlp": False, "sliding_window": sizes.window,
        "max_position_embeddings": max(2048, sizes.context), "final_logit_softcapping": 30.0,
        "layer_types": [*[SLIDING] * 5, FULL] * (LAYERS // 6),
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip


def new_model(sizes: Sizes) -> Any:
    """The model with the weights that the seed draws, float32."""
    import torch
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig

    torch.manual_seed(sizes.seed)
    return Gemma4ForCausalLM(Gemma4TextConfig(**settings(sizes))).float()
