"""The encoder that ships: MiniLM's first layers, fine-tuned on the domains' queries, in 8 bits.

The file has all weights but the word embeddings, which are MiniLM's own and are not trained. A matrix has one
scale for each row; vectors are stored in 16 bits.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from router.embedding.layers import keep_layers
from slices.files import atomic

FILE = Path(__file__).parent.parent / "pretrained" / "encoder.safetensors"
_SCALE = ".scale"
_LIMIT = 127


@cache
def pretrained_name(file: Path = FILE) -> str | None:
    """The name of the encoder in `file`; None without it."""
    return _metadata(file)["name"] if file.is_file() else None


def apply_pretrained(model: Any, file: Path = FILE) -> Any:
    """`model`, MiniLM as a sentence-transformers model, with the layers and weights of `file`."""
    import torch
    from safetensors.numpy import load_file

    keep_layers(model, int(_metadata(file)["layers"]))
    stored = load_file(file)
    state = {
        name: torch.from_numpy(_dequantized(array, stored.get(name + _SCALE)))
        for name, array in stored.items()
        if not name.endswith(_SCALE)
    }
    missing, unexpected = model[0].model.load_state_dict(state, strict=False)
    if unexpected or any("word_embeddings" not in name and "position_ids" not in name for name in missing):
        raise RuntimeError(f"{file} does not fit MiniLM: {[*unexpected, *missing]}")
    return model


def save_pretrained(model: Any, name: str, file: Path = FILE) -> None:
    """Write the weights of a fine-tuned sentence-transformers model, word embeddings left out, to `file`."""
    from safetensors.numpy import save

    transformer = model[0].model
    arrays: dict[str, Any] = {}
    for key, tensor in transformer.state_dict().items():
        if "word_embeddings" not in key and tensor.is_floating_point():
            arrays |= _quantized(key, tensor.float().cpu().numpy())
    metadata = {"name": name, "layers": str(transformer.config.num_hidden_layers)}
    with atomic.staged(file, force=True) as partial:
        partial.write_bytes(save(arrays, metadata))


def _quantized(name: str, array: Any) -> dict[str, Any]:
    if array.ndim < 2 or "position" in name or "token_type" in name:
        return {name: array.astype(np.float16)}
    scale = (np.abs(array).max(axis=1, keepdims=True) / _LIMIT).astype(np.float32)
    return {name: np.rint(array / scale).astype(np.int8), name + _SCALE: scale}


def _dequantized(array: Any, scale: Any) -> Any:
    return array.astype(np.float32) * (1 if scale is None else scale)


def _metadata(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, "numpy") as opened:
        return dict(opened.metadata())
