"""Constrained decoding: llama.cpp's GBNF engine masks the logits of one answer."""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.errors import Unsupported
from slices.runtimes.llama_model import LlamaModel

_ROOT = b"root"
_ENTRY = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])  # llama_token_data


class Grammar:
    """The grammar state of one answer. Free it when the answer is over."""

    def __init__(self, model: LlamaModel, text: str) -> None:
        """Begin to match `text`, in GBNF.

        Raises:
            Unsupported: llama.cpp cannot read it.
        """
        self._cpp = model.cpp
        self._sampler: Any = self._cpp.llama_sampler_init_grammar(model.vocab, text.encode(), _ROOT)
        if not self._sampler:
            raise Unsupported("the grammar or schema cannot be read")

    def allows(self, token: int) -> bool:
        """Whether the answer may go on with this token."""
        return bool(np.isfinite(self._applied(np.array([token]), np.zeros(1, dtype=np.float32)))[0])

    def masked(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (vocabulary,) with minus infinity where the answer may not go on with that token."""
        return self._applied(np.arange(len(logits)), logits)

    def accept(self, token: int) -> None:
        """Go on with a token that is allowed."""
        self._cpp.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        """Free it; calling it twice is fine."""
        if self._sampler is not None:
            self._cpp.llama_sampler_free(self._sampler)
            self._sampler = None

    def _applied(self, tokens: NDArray[np.int64], logits: NDArray[np.float32]) -> NDArray[np.float32]:
        entries = np.zeros(len(tokens), dtype=_ENTRY)
        entries["id"], entries["logit"] = tokens, logits
        data = entries.ctypes.data_as(self._cpp.llama_token_data_p)
        given = self._cpp.llama_token_data_array(data=data, size=len(tokens), selected=-1, sorted=False)
        self._cpp.llama_sampler_apply(self._sampler, ctypes.byref(given))
        found: NDArray[np.float32] = entries["logit"].copy()
        return found
