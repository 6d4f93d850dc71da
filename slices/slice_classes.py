"""Our transformers classes, registered with the Auto classes: slices that no stock class can load.

    import slices.slice_classes
    slices.slice_classes.register()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)

No code travels with a checkpoint.
"""

from slices import gemma3_slice, gemma4_slice
from slices.errors import MissingExtra
from slices.families import gemma3, gemma4

MODEL_TYPES = frozenset({*gemma3.SLICE_TYPES.values(), *gemma4.SLICE_TYPES.values()})


def register() -> None:
    """Register the model_types of our slices with AutoConfig and AutoModelForCausalLM. Idempotent.

    Raises:
        MissingExtra: transformers is not installed.
    """
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError:
        raise MissingExtra("transformers", "torch") from None
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if all(model_type in CONFIG_MAPPING for model_type in MODEL_TYPES):
        return
    for config, model in [*gemma3_slice.classes(), *gemma4_slice.classes()]:
        if config.model_type not in CONFIG_MAPPING:
            AutoConfig.register(config.model_type, config)
            AutoModelForCausalLM.register(config, model)
