"""A Gemma 3 slice whose full-attention layers are limited to the sliding window, as transformers classes.

They keep their rotary theta, which no stock config can say of a sliding layer; all else is the stock model.
`slices.slice_classes.register` makes them known to the Auto classes.
"""

from typing import Any

from slices.families.gemma3 import SLICE_TYPES
from slices.windowed_attention import window_full_attention


def classes() -> list[tuple[Any, Any]]:
    """The config and model class of each of our model_types."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    class Gemma3SliceConfig(Gemma3TextConfig):
        """Gemma3TextConfig that may say `window_full_attention`."""

        model_type = SLICE_TYPES["gemma3_text"]

    class Gemma3SliceForCausalLM(Gemma3ForCausalLM):
        """Gemma3ForCausalLM under that config."""

        config_class = Gemma3SliceConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            window_full_attention(self.model)

    return [(Gemma3SliceConfig, Gemma3SliceForCausalLM)]
