"""Inputs of llama.cpp's matrix products, captured by its eval callback: a check of `slices.quant.imatrix`.

Uses the callback (`cb_eval`) that llama-imatrix uses, and reads the operands of each product by ctypes.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slices.runtimes.llama_runtime import LlamaRuntime


class _Tensor(ctypes.Structure):
    """ggml_tensor, as in llama.cpp's ggml.h."""


_Tensor._fields_ = [
    ("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4), ("op", ctypes.c_int), ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32), ("src", ctypes.POINTER(_Tensor) * 10), ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t), ("data", ctypes.c_void_p), ("name", ctypes.c_char * 64),
]  # fmt: skip


class CapturingRuntime(LlamaRuntime):
    """Sums the squared inputs of every matrix of the blocks, by its name: [sums, rows] of each expert."""

    def __init__(self, path: Path, context: int = 512) -> None:
        self.sums: dict[str, list[list[Any]]] = {}
        super().__init__(path, threads=1, n_ctx=context)

    def read(self, batches: Sequence[Sequence[int]]) -> None:
        """Run each batch on its own."""
        for tokens in batches:
            self._clear_kv_cache()
            for start in range(0, len(tokens), self._chunk):
                self._decode(tokens[start : start + self._chunk], start, every=True)

    def _params(self, n_ctx: int) -> ctypes.Structure:
        params: Any = super()._params(n_ctx)
        kind = dict(type(params)._fields_)["cb_eval"]
        self._callback = kind(self._watch)  # kept alive: llama.cpp goes on calling it
        params.cb_eval = self._callback
        return params  # type: ignore[no-any-return]

    def _watch(self, address: int, asking: bool, _: object) -> bool:
        node = _Tensor.from_address(address)
        if not node.src[0] or not node.src[1]:
            return not asking
        name = node.src[0].contents.name.decode()
        product = name.startswith("blk.") and name.endswith(".weight")
        if not asking and product:
            self._add(name, node)
        return product or not asking

    def _add(self, name: str, node: _Tensor) -> None:
        values = _array(node.src[1].contents, "<f4")  # (1, tokens, 1 or experts a token, columns) or less
        if not node.src[2]:
            rows = values.reshape(-1, values.shape[-1])
            self._sum(name, 0, 1, rows)
            return
        chosen = _array(node.src[2].contents, "<i4")[0, 0]  # (tokens, experts a token)
        count = node.src[0].contents.ne[2]
        wide = np.broadcast_to(values[0], (*chosen.shape, values.shape[-1]))
        for expert in range(count):
            self._sum(name, expert, count, wide[chosen == expert])

    def _sum(self, name: str, expert: int, count: int, rows: np.ndarray) -> None:
        total = self.sums.setdefault(name, [[0.0, 0] for _ in range(count)])[expert]
        total[0] = total[0] + np.square(rows.astype(np.float64)).sum(axis=0)
        total[1] += len(rows)


def _array(tensor: _Tensor, kind: str) -> np.ndarray:
    """A tensor's numbers, the contiguous axis last."""
    shape, strides = tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1]
    span = sum((side - 1) * step for side, step in zip(shape, strides, strict=True)) + np.dtype(kind).itemsize
    raw = (ctypes.c_char * span).from_address(tensor.data)
    return np.ndarray(shape, kind, raw, strides=strides).copy()
