"""Pico checkpoints: the real classes with random weights, small enough to cut and run in a second."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.slices.gguf_fixtures import tokenizer_json, write_gemma3

__all__ = ["bypassed", "logits", "tokenizer_json", "write_gemma3", "write_gemma4"]


def write_gemma4(folder: Path, layer_types: Sequence[str], **changes: Any) -> Path:
    """Write a pico gemma4_text checkpoint with random weights, norms and layer scalars."""
    import torch
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig

    document = tokenizer_json()
    rows = len(document["model"]["vocab"])
    settings: dict[str, Any] = {
        "vocab_size": rows, "vocab_size_per_layer_input": rows, "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": len(layer_types), "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "global_head_dim": 16, "hidden_size_per_layer_input": 4, "sliding_window": 16,
        "max_position_embeddings": 256, "layer_types": list(layer_types), "final_logit_softcapping": 30.0,
    }  # fmt: skip
    torch.manual_seed(11)
    model = Gemma4ForCausalLM(Gemma4TextConfig(**(settings | changes)))
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if "layer_scalar" in name:
                weight.uniform_(0.5, 1.0)
            elif weight.is_floating_point() and "inv_freq" not in name and "scale" not in name:
                weight.normal_(1.0 if "norm" in name else 0.0, 0.2)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    return folder


def logits(model: Any, ids: Sequence[int]) -> Any:
    """Logits of every position, and of a cached run that takes the last 5 tokens one at a time."""
    import torch

    tokens = torch.tensor([list(ids)])
    with torch.inference_mode():
        whole = model(tokens).logits[0]
        cache = model(tokens[:, :-5], use_cache=True)
        steps = [cache.logits[0, -1]]
        past = cache.past_key_values
        for position in range(len(ids) - 5, len(ids) - 1):
            step = model(tokens[:, position : position + 1], past_key_values=past, use_cache=True)
            steps.append(step.logits[0, -1])
    return whole, torch.stack(steps)


@contextmanager
def bypassed(model: Any, kept: Sequence[int]) -> Iterator[Any]:
    """The parent with the other layers handing their input on, which is what a slice must equal.

    They still run, for their side effect: transformers reads the length of the past off the first layer's cache.
    """
    layers = model.model.layers
    dropped = [index for index in range(len(layers)) if index not in kept]
    for index in dropped:
        layers[index].forward = _handing_on(layers[index].forward)
    try:
        yield model
    finally:
        for index in dropped:
            del layers[index].forward


def _handing_on(forward: Any) -> Any:
    def run(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        forward(hidden_states, *args, **kwargs)
        return hidden_states

    return run
