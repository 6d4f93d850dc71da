"""A fast path for one text through an ONNX Runtime encoder, past the batching of sentence-transformers.

Tokenize, run the transformer, mean-pool, normalize: most sentence encoders do nothing else, and going through
sentence-transformers costs a short text one millisecond more.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import REFERENCE_TEXT, l2_normalize

SingleTextEncoder = Callable[[str], NDArray[np.float32]]
_MIN_COSINE = 0.9999  # to the whole encoder's vectors of the reference texts
_REFERENCE_TEXTS = (REFERENCE_TEXT, "2 + 2 = FOUR?")


def single_text_encoder(model: Any, max_tokens: int) -> SingleTextEncoder | None:
    """A function that gives the unit vector (1, dim) that `model` gives, faster. Thread-safe.

    Args:
        model: a sentence-transformers encoder after `router.embedding.onnx_export.use_onnx_runtime`.
        max_tokens: truncation length, special tokens included.

    Returns:
        None where there is no fast path: no fast tokenizer, or other vectors than the encoder's, which then
        pools in another way.
    """
    tokenizer = _fast_tokenizer(model, max_tokens)
    if tokenizer is None:
        return None
    hidden_states = model[0].model.hidden_states

    def encode(text: str) -> NDArray[np.float32]:
        encoding = tokenizer.encode(text)
        rows = (encoding.ids, encoding.attention_mask, encoding.type_ids)
        states = hidden_states(*(np.array([row], dtype=np.int64) for row in rows))  # (1, tokens, dim)
        return l2_normalize(states.mean(axis=1))

    return encode if all(_matches(model, text, encode(text)) for text in _REFERENCE_TEXTS) else None


def _matches(model: Any, text: str, vector: NDArray[np.float32]) -> bool:
    import torch

    with torch.inference_mode():
        expected = model(model.preprocess([text]))["sentence_embedding"].float().numpy()
    return float((vector @ l2_normalize(expected).T).item()) > _MIN_COSINE


def _fast_tokenizer(model: Any, max_tokens: int) -> Any:
    """A copy of the Rust tokenizer that truncates at `max_tokens`; None without one."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    tokenizer = type(backend).from_str(backend.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer
