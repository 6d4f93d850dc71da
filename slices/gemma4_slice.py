"""A Gemma 4 slice that ends on a sliding layer, as a transformers class of its own.

Stock transformers turns the last layer of a Gemma 4 into a full-attention layer, with a warning only.
This config keeps `layer_types` as they are; all else is the stock model. `register()` makes it known to
the Auto classes; no code travels with the checkpoint.
"""

from typing import Any

from slices.errors import MissingExtra
from slices.families.gemma4 import SLICE_TYPE


def register() -> None:
    """Teach AutoConfig and AutoModelForCausalLM the model_type of SWA-only slices. Safe to call twice."""
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError:
        raise MissingExtra("transformers", "torch") from None
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if SLICE_TYPE not in CONFIG_MAPPING:
        config, model = _classes()
        AutoConfig.register(SLICE_TYPE, config)
        AutoModelForCausalLM.register(config, model)


def _classes() -> tuple[Any, Any]:
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig

    class Gemma4SliceConfig(Gemma4TextConfig):
        """Gemma4TextConfig whose last layer may be sliding."""

        model_type = SLICE_TYPE

        def __post_init__(self, **kwargs: Any) -> None:
            types = list(self.layer_types or [])  # type: ignore[has-type]
            super().__post_init__(**kwargs)
            self.layer_types = types or self.layer_types  # type: ignore[has-type]

    class Gemma4SliceForCausalLM(Gemma4ForCausalLM):
        """Gemma4ForCausalLM under that config."""

        config_class = Gemma4SliceConfig

    return Gemma4SliceConfig, Gemma4SliceForCausalLM
