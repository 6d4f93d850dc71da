"""A Gemma 4 slice that ends on a sliding layer, as transformers classes of its own.

    import slices.gemma4_slice
    slices.gemma4_slice.register()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)

Stock transformers turns the last layer of a Gemma 4 into a full-attention layer, with a warning only.
These configs keep `layer_types` as they are; all else is the stock model. No code travels with the
checkpoint. A slice cut with `--portable` does without this.
"""

from typing import Any

from slices.errors import MissingExtra
from slices.families.gemma4 import SLICE_TYPES
from slices.families.table import FULL


def register() -> None:
    """Register the model_types of SWA-only slices with AutoConfig and AutoModelForCausalLM. Idempotent."""
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError:
        raise MissingExtra("transformers", "torch") from None
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for model_type, (config, model) in _classes().items():
        if model_type not in CONFIG_MAPPING:
            AutoConfig.register(model_type, config)
            AutoModelForCausalLM.register(config, model)


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


def _classes() -> dict[str, tuple[Any, Any]]:
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

    class Gemma4UnifiedSliceConfig(Gemma4UnifiedTextConfig):
        """Gemma4UnifiedTextConfig whose last layer may be sliding."""

        model_type = SLICE_TYPES["gemma4_unified_text"]

        def __post_init__(self, **kwargs: Any) -> None:
            _keep_types(self, super().__post_init__, kwargs)

    class Gemma4UnifiedSliceForCausalLM(Gemma4UnifiedForCausalLM):
        """Gemma4UnifiedForCausalLM under that config."""

        config_class = Gemma4UnifiedSliceConfig

    return {
        Gemma4SliceConfig.model_type: (Gemma4SliceConfig, Gemma4SliceForCausalLM),
        Gemma4UnifiedSliceConfig.model_type: (Gemma4UnifiedSliceConfig, Gemma4UnifiedSliceForCausalLM),
    }
