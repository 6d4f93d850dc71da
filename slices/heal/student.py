"""The student: the slice in float32, of which the heal method trains some parameters; embeddings are frozen.

The output layer is tied to the embedding, so it is frozen too.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slices.device import Device
from slices.errors import BadCheckpoint, MissingExtra
from slices.heal.fade import FadingLayers
from slices.heal.hidden_states import HiddenStates, forward_hidden_states
from slices.heal.objective import OutputHead
from slices.heal.qat import QuantizedWeights
from slices.heal.settings import HealConfig, HealMethod
from slices.runtimes.decoder import decoder_layers

LAYER_SCALAR = "layer_scalar"
_EMBEDDINGS = ("embed_tokens.weight", "embed_tokens_per_layer.weight", "lm_head.weight")
_LORA = (".lora_A.default.weight", ".lora_B.default.weight")


@dataclass(frozen=True)
class Student:
    """A model in training mode.

    Attributes:
        trainable: the parameters that are trained, float32, by name, in a fixed order.
        captured_layers: modules whose inputs the hidden-state loss compares with the parent's.
        qat: its weights as quantized, where it is trained for a quantized type.
        fading: dropped layers that contribute to the first training steps; None for none.
    """

    model: Any
    trainable: Mapping[str, Any]
    head: OutputHead
    device: Device
    captured_layers: Sequence[Any] = ()
    fading: FadingLayers | None = None
    qat: QuantizedWeights | None = None

    def as_served(self) -> AbstractContextManager[None]:
        """While it lasts, the weights are those that will be served: quantized, if that is trained for."""
        return nullcontext() if self.qat is None else self.qat.quantized()

    def hidden_states(self, tokens: Any) -> HiddenStates:
        """The hidden states of rows of token ids (rows, row_tokens): captured inputs, and the last."""
        return forward_hidden_states(self.model, self.captured_layers, self.device, tokens)

    def last_hidden_state(self, tokens: Any) -> Any:
        """The last hidden states of rows of token ids (rows, row_tokens): (rows x row_tokens, hidden)."""
        return forward_hidden_states(self.model, (), self.device, tokens).last

    def snapshot(self) -> dict[str, Any]:
        """Copies of the trainable parameters on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self.trainable.items()}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Set the trainable parameters to `values`."""
        import torch

        with torch.no_grad():
            for name, parameter in self.trainable.items():
                parameter.copy_(values[name])


def load_student(
    folder: Path,
    config: HealConfig,
    device: Device,
    absent_rows: Any = None,
    captured_layers: Sequence[int] = (),
) -> Student:
    """Load the slice in `folder` for training by `config.method`.

    Trainable parameters are float32; frozen ones, under `norms` and `lora`, are in the compute dtype.

    Args:
        absent_rows: vocabulary rows without a token, bool (vocabulary,); None for none.
        captured_layers: indices of the layers whose inputs the hidden-state loss compares.

    Raises:
        BadCheckpoint: a file is damaged, or weights are missing from it.
        MissingExtra: the method is LoRA and peft is not installed.
    """
    import torch

    torch.manual_seed(config.seed)
    full = config.method == HealMethod.FULL
    model = device.load(folder, torch.float32 if full else device.compute).requires_grad_(False)
    head = _output_head(model, folder, device, absent_rows)
    _register_layer_scalars(model)
    layers = decoder_layers(model)
    lora = config.method == HealMethod.LORA
    trainable = _add_lora(model, config.rank) if lora else _select_parameters(model, config.method)
    for parameter in trainable.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return Student(
        model=model.train(),
        trainable=trainable,
        head=head,
        device=device,
        captured_layers=[layers[index] for index in captured_layers],
    )


def trained_weights(student: Student) -> dict[str, Any]:
    """The trained weights by their name in the slice's files; LoRA adapters are merged."""
    if not any(name.endswith(_LORA) for name in student.trainable):
        return {name: value.detach() for name, value in student.trainable.items()}
    return {
        name + ".weight": module.get_base_layer().weight.detach().float()
        + module.get_delta_weight("default").float()
        for name, module in student.model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def _output_head(model: Any, folder: Path, device: Device, absent_rows: Any) -> OutputHead:
    """The frozen output layer in the compute dtype."""
    import torch

    weight = model.get_output_embeddings().weight
    if weight is not model.get_input_embeddings().weight:
        raise BadCheckpoint(f"{folder}: expected an output layer tied to the embedding, found one of its own")
    mask = None
    if absent_rows is not None:
        absent = torch.tensor(absent_rows, device=device.name)
        mask = torch.zeros(len(absent), device=device.name).masked_fill(absent, -torch.inf)
    softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return OutputHead(weight.detach().to(device.compute), softcap, mask)


def _register_layer_scalars(model: Any) -> None:
    """Turn Gemma 4's layer scalars, which transformers keeps as buffers, into parameters."""
    import torch

    for module in model.modules():
        value = module._buffers.pop(LAYER_SCALAR, None)
        if value is not None:
            module.register_parameter(LAYER_SCALAR, torch.nn.Parameter(value, requires_grad=False))


def _select_parameters(model: Any, method: HealMethod) -> dict[str, Any]:
    """Norm gains and layer scalars (`norms`), or everything but the embeddings (`full`)."""
    named = {name: value for name, value in model.named_parameters() if not name.endswith(_EMBEDDINGS)}
    if method == HealMethod.FULL:
        return named
    return {name: value for name, value in named.items() if value.ndim == 1}


def _add_lora(model: Any, rank: int) -> dict[str, Any]:
    """LoRA adapters on every matrix of every layer (Hu et al., 2021, arXiv 2106.09685)."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingExtra("peft", "heal") from None
    from torch.nn import Linear

    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, Linear) and ".layers." in f".{name}"
    ]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets)
    inject_adapter_in_model(config, model)
    return {name: value for name, value in model.named_parameters() if name.endswith(_LORA)}
