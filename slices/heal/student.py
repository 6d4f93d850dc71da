"""The slice as it learns: float32 weights, of which the method trains a part; the embeddings stay.

The output layer is the embedding (tied), so it is not trained either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slices.device import Device
from slices.errors import BadCheckpoint, MissingExtra
from slices.heal.objective import Head
from slices.heal.settings import Healing
from slices.heal.states import States, read
from slices.runtimes.decoder import decoder_layers

SCALAR = "layer_scalar"
_TABLES = ("embed_tokens.weight", "embed_tokens_per_layer.weight", "lm_head.weight")
_LORA = (".lora_A.default.weight", ".lora_B.default.weight")


@dataclass(frozen=True)
class Student:
    """A model in learning. `trained` are its parameters that change, by name, in a fixed order.

    `watched` are the layers whose inputs are held against the parent's.
    """

    model: Any
    trained: Mapping[str, Any]
    head: Head
    device: Device
    watched: Sequence[Any] = ()

    def states(self, tokens: Any) -> States:
        """What enters the watched layers and leaves the last, for rows of tokens (rows, context)."""
        return read(self.model, self.watched, self.device, tokens)

    def hidden(self, tokens: Any) -> Any:
        """The last hidden states after rows of tokens (rows, context): (rows x context, hidden)."""
        return read(self.model, (), self.device, tokens).last

    def values(self) -> dict[str, Any]:
        """Copies of the trained parameters on the processor."""
        return {name: value.detach().cpu().clone() for name, value in self.trained.items()}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Put the trained parameters back to `values`."""
        import torch

        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(values[name])


def load_student(
    folder: Path, healing: Healing, device: Device, absent: Any = None, watched: Sequence[int] = ()
) -> Student:
    """The slice in `folder`, made ready to learn by `healing.method`.

    What is trained is float32; what is not, under `norms` and `lora`, is what matrices are multiplied in.

    Args:
        absent: which rows stand for no token, bool (vocabulary,); None for none.
        watched: the layers whose inputs are held against the parent's.

    Raises:
        BadCheckpoint: a file is damaged, or weights are missing from it.
        MissingExtra: LoRA is wanted and peft is not installed.
    """
    import torch

    torch.manual_seed(healing.seed)
    wide = torch.float32 if healing.method == "full" else device.compute
    model = device.load(folder, wide).requires_grad_(False)
    if model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        raise BadCheckpoint(f"{folder}: the output layer is not the embedding, which healing counts on")
    weight = model.get_output_embeddings().weight.detach().to(device.compute)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    unknown = None if absent is None else torch.tensor(absent, device=device.name)
    if unknown is not None:
        unknown = torch.zeros(len(unknown), device=device.name).masked_fill(unknown, -torch.inf)
    _free_scalars(model)
    layers = decoder_layers(model)
    trained = _adapted(model, healing) if healing.method == "lora" else _chosen(model, healing.method)
    for parameter in trained.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    head = Head(weight, cap, unknown)
    return Student(model.train(), trained, head, device, [layers[index] for index in watched])


def learned_weights(student: Student) -> dict[str, Any]:
    """The weights that differ from the slice's, by their name in its files; low-rank additions merged in."""
    if not any(name.endswith(_LORA) for name in student.trained):
        return {name: value.detach() for name, value in student.trained.items()}
    return {
        name + ".weight": module.get_base_layer().weight.detach().float()
        + module.get_delta_weight("default").float()
        for name, module in student.model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def _free_scalars(model: Any) -> None:
    """Make Gemma 4's layer scalars, which transformers keeps as buffers, parameters like the other gains."""
    import torch

    for module in model.modules():
        value = module._buffers.pop(SCALAR, None)
        if value is not None:
            module.register_parameter(SCALAR, torch.nn.Parameter(value, requires_grad=False))


def _chosen(model: Any, method: str) -> dict[str, Any]:
    """Gains and scalars (`norms`), or everything but the tables (`full`)."""
    named = {name: value for name, value in model.named_parameters() if not name.endswith(_TABLES)}
    if method == "full":
        return named
    return {name: value for name, value in named.items() if value.ndim == 1}


def _adapted(model: Any, healing: Healing) -> dict[str, Any]:
    """Low-rank additions to every matrix of every layer (LoRA: Hu et al., 2021, arXiv 2106.09685)."""
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
    config = LoraConfig(r=healing.rank, lora_alpha=2 * healing.rank, lora_dropout=0.0, target_modules=targets)
    inject_adapter_in_model(config, model)
    return {name: value for name, value in model.named_parameters() if name.endswith(_LORA)}
