"""The decoder of a model in torch: its layers, and what enters them as the model runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def decoder_layers(model: Any) -> Any:
    """A model's layers, in order."""
    return _decoder(model).layers


def final_norm(model: Any) -> Any:
    """The norm that what leaves the last layer enters."""
    return _decoder(model).norm


@contextmanager
def entering(modules: Sequence[Any]) -> Iterator[list[Any]]:
    """Collect what enters each of these modules as they run: copies of (rows, tokens, hidden)."""
    seen: list[Any] = []
    hooks = [each.register_forward_pre_hook(_noting(seen), with_kwargs=True) for each in modules]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _decoder(model: Any) -> Any:
    inner = model.base_model
    return getattr(inner, "language_model", inner)


def _noting(seen: list[Any]) -> Callable[..., None]:
    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).clone())

    return note
