"""Full-attention layers of a transformers model limited to the sliding window: mask and KV cache change.

Heads, K/V donors and rotary embedding stay as they are, so that within the window the model is the parent.
"""

from inspect import signature
from typing import Any

from slices.families.table import FULL, SLIDING, WINDOW_FULL_ATTENTION


def window_full_attention(text_model: Any) -> None:
    """Limit the full-attention layers of a Gemma's text model where its config says `window_full_attention`.

    Every forward pass then takes the sliding mask for both attention types, and a `DynamicCache` keeps a
    window of K/V in every layer.
    """
    config = text_model.config
    if not getattr(config, WINDOW_FULL_ATTENTION, False):
        return
    for layer in text_model.layers:
        layer.self_attn.sliding_window = config.sliding_window  # what flash attention reads
    text_model.register_forward_pre_hook(_pass_sliding_mask, with_kwargs=True)


def _pass_sliding_mask(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The arguments of a forward pass, with one mask for both attention types and a windowed cache."""
    arguments = dict(signature(model.forward).bind_partial(*args).arguments) | kwargs
    name = cache_argument(model)
    arguments[name] = _windowed_cache(model.config, arguments.get(name), arguments.get("use_cache"))
    mask = arguments.get("attention_mask")
    mask = mask[SLIDING] if isinstance(mask, dict) else _sliding_mask(model, arguments, arguments[name])
    arguments["attention_mask"] = {FULL: mask, SLIDING: mask}
    return (), arguments


def cache_argument(model: Any) -> str:
    """The name of a model's KV cache argument, which transformers 5.24 renamed."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def _windowed_cache(config: Any, cache: Any, use_cache: bool | None) -> Any:
    """The cache with a window in every layer that holds nothing yet; None where none is used."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    if cache is None:
        if not (config.use_cache if use_cache is None else use_cache):
            return None
        cache = DynamicCache(config=config)
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and not layer.is_initialized:
            cache.layers[index] = DynamicSlidingWindowLayer(sliding_window=config.sliding_window)
    return cache


def _sliding_mask(model: Any, arguments: dict[str, Any], cache: Any) -> Any:
    from transformers.masking_utils import create_sliding_window_causal_mask

    create: Any = create_sliding_window_causal_mask
    embeddings: Any = arguments.get("inputs_embeds")
    if embeddings is None:  # only its shape, dtype and device are read
        embeddings = model.embed_tokens.weight.new_empty((*arguments["input_ids"].shape, 0))
    name = "cache" if "cache" in signature(create).parameters else "past_key_values"
    return create(
        config=model.config,
        inputs_embeds=embeddings,
        attention_mask=arguments.get("attention_mask"),
        position_ids=arguments.get("position_ids"),
        **{name: cache},
    )
