"""Layers compiled for the rows that a run reads: fewer passes over memory, the same sums in another order.

Compiling takes about a minute, so only long runs do it. Held-out windows are of many lengths and run as ever.
"""

from collections.abc import Callable
from importlib.util import find_spec
from os import environ
from shutil import which
from typing import Any

from slices.runtimes.decoder import decoder_layers

WORTH = 400_000  # tokens: with fewer, compiling takes longer than it saves
WORTH_MINUTES = 15.0  # the same of a run that is asked for by its time


def can_compile(device: str) -> bool:
    """Whether torch has what it compiles with: a C++ compiler for a processor, Triton for a GPU."""
    if device != "cpu":
        return find_spec("triton") is not None
    return any(which(name) for name in (environ.get("CXX", ""), "c++", "g++", "clang++") if name)


def compile_layers(model: Any, rows: int, context: int) -> None:
    """Compile every decoder layer of `model` for hidden states of shape (rows, context, hidden).

    What cannot be compiled runs as it is.
    """
    import torch
    import torch._dynamo as dynamo

    layers = decoder_layers(model)
    dynamo.config.suppress_errors = True
    dynamo.config.recompile_limit = max(dynamo.config.recompile_limit, 4 * len(layers))
    for layer in layers:
        layer.forward = _for_shape(
            layer.forward, torch.compile(layer.forward, dynamic=False), (rows, context)
        )


def _for_shape(plain: Callable[..., Any], fast: Callable[..., Any], shape: tuple[int, int]) -> Any:
    def forward(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        chosen = fast if tuple(hidden_states.shape[:2]) == shape else plain
        return chosen(hidden_states, *args, **kwargs)

    return forward
