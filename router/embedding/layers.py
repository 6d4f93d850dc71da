"""Truncation of a sentence encoder to its first layers."""

from typing import Any

from router.errors import BadTraining


def keep_layers(model: Any, count: int | None) -> None:
    """Truncate the transformer of a sentence-transformers model to its first `count` layers; None keeps all.

    Raises:
        BadTraining: it has fewer, or its list of layers cannot be found.
    """
    import torch

    if count is None:
        return
    transformer = model[0].model
    total = int(transformer.config.num_hidden_layers)
    lists = [
        each for each in transformer.modules() if isinstance(each, torch.nn.ModuleList) and len(each) == total
    ]
    if not 1 <= count <= total or len(lists) != 1:
        raise BadTraining(f"cannot keep {count} layers of the encoder, which has {total}")
    del lists[0][count:]
    transformer.config.num_hidden_layers = count
