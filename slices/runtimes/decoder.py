"""The decoder layers of a model in torch, and hooks that capture their inputs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def decoder_layers(model: Any) -> Any:
    """A model's layers, in order."""
    return text_model(model).layers


def final_norm(model: Any) -> Any:
    """The norm after the last layer."""
    return text_model(model).norm


@contextmanager
def capture_inputs(modules: Sequence[Any]) -> Iterator[list[Any]]:
    """Capture the input of each of these modules as they run: copies of (rows, tokens, hidden)."""
    captured: list[Any] = []
    hooks = [each.register_forward_pre_hook(_capture_hook(captured), with_kwargs=True) for each in modules]
    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()


def text_model(model: Any) -> Any:
    """The text model inside a model for causal language modelling, multimodal or not."""
    inner = model.base_model
    return getattr(inner, "language_model", inner)


def _capture_hook(captured: list[Any]) -> Callable[..., None]:
    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        captured.append((args[0] if args else kwargs["hidden_states"]).clone())

    return hook
