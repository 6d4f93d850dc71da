"""Layers through `torch.compile` for the shape of training batches: fewer passes over memory, the same math.

Compiling takes about a minute, so only long runs do it. Held-out windows vary in length and run eagerly.
"""

from collections.abc import Callable
from importlib.util import find_spec
from os import environ
from shutil import which
from typing import Any

from slices.runtimes.decoder import decoder_layers

MIN_TOKENS = 400_000  # of a run; with fewer, compiling takes longer than it saves
MIN_MINUTES = 15.0  # the same for a run with a time budget


def can_compile(device: str) -> bool:
    """Whether torch.compile has its backend: a C++ compiler on a CPU, Triton on a GPU."""
    if device != "cpu":
        return find_spec("triton") is not None
    return any(which(name) for name in (environ.get("CXX", ""), "c++", "g++", "clang++") if name)


def compile_layers(model: Any, rows: int, row_tokens: int) -> None:
    """Compile every decoder layer of `model` for hidden states of shape (rows, row_tokens, hidden).

    What cannot be compiled, and any other shape, runs eagerly.
    """
    import torch
    import torch._dynamo as dynamo

    layers = decoder_layers(model)
    dynamo.config.suppress_errors = True
    dynamo.config.recompile_limit = max(dynamo.config.recompile_limit, 4 * len(layers))
    for layer in layers:
        layer.forward = _for_shape(
            layer.forward, torch.compile(layer.forward, dynamic=False), (rows, row_tokens)
        )


def _for_shape(eager: Callable[..., Any], compiled: Callable[..., Any], shape: tuple[int, int]) -> Any:
    def forward(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        chosen = compiled if tuple(hidden_states.shape[:2]) == shape else eager
        return chosen(hidden_states, *args, **kwargs)

    return forward
