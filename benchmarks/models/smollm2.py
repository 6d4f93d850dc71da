"""SmolLM2 in torch, from its bf16 GGUF: what the hooks of an importance matrix need, and no more.

transformers reads such files too, but only with the package accelerate. llama.cpp keeps the rows of a head's
queries and keys in pairs that turn together; transformers keeps the two halves apart.
"""

from pathlib import Path
from typing import Any

LAYER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
WHOLE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def torch_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    if name in WHOLE:
        return WHOLE[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{LAYER[part]}.weight"


def load_llama(file: Path) -> tuple[Any, dict[str, str]]:
    """A llama of tied embeddings in float32, and the GGUF's names of its parameters."""
    import gguf
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    reader = gguf.GGUFReader(file)
    said = {name.removeprefix("llama."): field.contents() for name, field in reader.fields.items()}
    heads = {"attn_q": said["attention.head_count"], "attn_k": said["attention.head_count_kv"]}
    state = {}
    for tensor in reader.tensors:
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        part = tensor.name.split(".")[-2]
        state[torch_name(tensor.name)] = halves(values, heads[part]) if part in heads else values
    config = LlamaConfig(
        vocab_size=len(said["tokenizer.ggml.tokens"]), hidden_size=said["embedding_length"],
        intermediate_size=said["feed_forward_length"], num_hidden_layers=said["block_count"],
        num_attention_heads=heads["attn_q"], num_key_value_heads=heads["attn_k"],
        max_position_embeddings=said["context_length"], tie_word_embeddings=True,
        rms_norm_eps=said["attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": said["rope.freq_base"]},
    )  # fmt: skip
    model = LlamaForCausalLM(config).float().eval()
    model.load_state_dict(state | {"lm_head.weight": state[WHOLE["token_embd.weight"]]})
    return model, {torch_name(tensor.name): tensor.name for tensor in reader.tensors}


def halves(weight: Any, heads: int) -> Any:
    """Rows of each head from pairs to halves, shape (rows, columns)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
