"""A Gemma 4 slice that ends on a sliding layer, or whose full-attention layers are limited to the window, as
transformers classes of its own. `slices.slice_classes.register` makes them known to the Auto classes.

Stock transformers turns the last layer of a Gemma 4 into a full-attention layer, with a warning only.
These configs keep `layer_types` as they are; all else is the stock model. A slice cut with `--portable`
does without this.
"""

from typing import Any

from slices.families.gemma4 import SLICE_TYPES
from slices.families.table import FULL
from slices.windowed_attention import window_full_attention


def _keep_types(config: Any, stock_init: Any, kwargs: dict[str, Any]) -> None:
    """Run the stock initialisation on layer types that it does not change, then restore ours."""
    types = list(config.layer_types or [])
    config.layer_types = [*types[:-1], FULL] if types else None
    if types and "per_layer_config" not in kwargs:
        head = {"head_dim": kwargs.get("global_head_dim", 512)}
        heads = kwargs.get("num_global_key_value_heads") if config.attention_k_eq_v else None
        head |= {} if heads is None else {"num_key_value_heads": heads}
        kwargs["per_layer_config"] = {i: dict(head) for i, kind in enumerate(types) if kind == FULL}
    stock_init(**kwargs)
    config.layer_types = types or config.layer_types


def classes() -> list[tuple[Any, Any]]:
    """The config and model class of each of our model_types."""
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig
    from transformers.models.gemma4_unified.configuration_gemma4_unified import Gemma4UnifiedTextConfig
    from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedForCausalLM

    class Gemma4SliceConfig(Gemma4TextConfig):
        """Gemma4TextConfig whose last layer may be sliding."""

        model_type = SLICE_TYPES["gemma4_text"]

        def __post_init__(self, **kwargs: Any) -> None:
            _keep_types(self, super().__post_init__, kwargs)

    class Gemma4SliceForCausalLM(Gemma4ForCausalLM):
        """Gemma4ForCausalLM under that config."""

        config_class = Gemma4SliceConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            window_full_attention(self.model)

    class Gemma4UnifiedSliceConfig(Gemma4UnifiedTextConfig):
        """Gemma4UnifiedTextConfig whose last layer may be sliding."""

        model_type = SLICE_TYPES["gemma4_unified_text"]

        def __post_init__(self, **kwargs: Any) -> None:
            _keep_types(self, super().__post_init__, kwargs)

    class Gemma4UnifiedSliceForCausalLM(Gemma4UnifiedForCausalLM):
        """Gemma4UnifiedForCausalLM under that config."""

        config_class = Gemma4UnifiedSliceConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            window_full_attention(self.model)

    return [
        (Gemma4SliceConfig, Gemma4SliceForCausalLM),
        (Gemma4UnifiedSliceConfig, Gemma4UnifiedSliceForCausalLM),
    ]
