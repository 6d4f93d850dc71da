"""One text through an encoder that runs in ONNX Runtime, past what is prepared for many.

Tokens, states and their mean are all that most sentence encoders are; by way of sentence-transformers a short
text takes a millisecond more.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import PROBE, unit

Alone = Callable[[str], NDArray[np.float32]]
_SAME = 0.9999  # cosine to what the whole encoder makes of the probes
_PROBES = (PROBE, "2 + 2 = FOUR?")


def alone(model: Any, tokens: int) -> Alone | None:
    """A text's vector, (1, dim) of length 1, as `model` makes it, by a shorter way. Safe to share by threads.

    Args:
        model: a sentence-transformers encoder after `router.embedding.onnx_export.hasten`.
        tokens: how many of a text are read, those at its ends included.

    Returns:
        None where there is no shorter way: a slow tokenizer, or vectors that come out different, since
        the encoder pools in another way.
    """
    tokenizer = _tokenizer(model, tokens)
    if tokenizer is None:
        return None
    states_of = model[0].model.states

    def mean_of_states(text: str) -> NDArray[np.float32]:
        read = tokenizer.encode(text)
        rows = (read.ids, read.attention_mask, read.type_ids)
        states = states_of(*(np.array([row], dtype=np.int64) for row in rows))
        return unit(states.mean(axis=1))

    return mean_of_states if all(_same(model, text, mean_of_states(text)) for text in _PROBES) else None


def _same(model: Any, text: str, vector: NDArray[np.float32]) -> bool:
    import torch

    with torch.inference_mode():
        told = model(model.preprocess([text]))["sentence_embedding"].float().numpy()
    return float((vector @ unit(told).T).item()) > _SAME


def _tokenizer(model: Any, tokens: int) -> Any:
    """A fast tokenizer of its own, which cuts texts at `tokens`; None without a fast one."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    made = type(backend).from_str(backend.to_str())
    made.no_padding()
    made.enable_truncation(tokens)
    return made
