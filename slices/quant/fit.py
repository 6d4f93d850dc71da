"""An importance matrix, fitted to the tensors that are to be quantized.

A tensor that is quantized and run must have its values, since llama.cpp goes on without them in silence.
Tables of the vocabulary are looked up rather than multiplied, and have none. How the values are measured is
in `slices.quant.imatrix`, their share of the model in `slices.quant.coverage`.
"""

import hashlib
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from slices.errors import BadCheckpoint
from slices.gguf.header import GGUFHeader, GGUFTensor
from slices.gguf.pad_rows import HIDDEN_SIZE, pad_importance
from slices.gguf.tensor_types import EMBEDDING_TENSORS, type_name
from slices.quant.imatrix_file import Imatrix

_UNWEIGHTED = (*EMBEDDING_TENSORS, "output.weight")


def weighted_tensors(header: GGUFHeader, types: Mapping[str, str]) -> list[GGUFTensor]:
    """The matrices of the file that `types` quantizes, tables apart."""
    return [
        tensor
        for tensor in header.tensors
        if tensor.name not in _UNWEIGHTED and types[tensor.name] != type_name(tensor.type)
    ]


def fit_imatrix(
    imatrix: Imatrix, header: GGUFHeader, types: Mapping[str, str]
) -> dict[str, NDArray[np.float32]]:
    """The values of every tensor to be quantized, (columns,) or (experts * columns,).

    An identity layer's matrices hold zeros and were not measured: all their columns weigh the same.

    Raises:
        BadCheckpoint: a tensor has no values, or as many as do not fit it; it is named.
    """
    fitted = {}
    for tensor in weighted_tensors(header, types):
        expected = tensor.shape[0] * prod(tensor.shape[2:])
        values = imatrix.values.get(tensor.name)
        if values is None and not _is_identity_layer(tensor.name, header):
            raise BadCheckpoint(
                f"the importance matrix has no values for {tensor.name!r}: it is of another slice"
            )
        if values is not None and len(values) == header.metadata.get(HIDDEN_SIZE):
            values = pad_importance(values, expected)
        if values is not None and values.shape != (expected,):
            raise BadCheckpoint(
                f"the importance matrix has {values.size} values for {tensor.name!r}, "
                f"which needs {expected}: it is of another slice"
            )
        fitted[tensor.name] = np.ones(expected, np.float32) if values is None else values.astype(np.float32)
    return fitted


def _is_identity_layer(name: str, header: GGUFHeader) -> bool:
    identity_layers = header.metadata.get("mom.identity_layers", [])
    return any(name.startswith(f"blk.{index}.") for index in identity_layers)


def imatrix_sha256(imatrix: Imatrix) -> str:
    """sha256 of every tensor's name and values, in the order of names."""
    found = hashlib.sha256()
    for name in sorted(imatrix.values):
        found.update(name.encode() + b"\0")
        found.update(np.ascontiguousarray(imatrix.values[name], "<f4").data)
    return found.hexdigest()


def save_values(values: Mapping[str, NDArray[np.float32]], path: Path) -> None:
    """Write the values for the quantizer's process, as safetensors."""
    path.write_bytes(save({name: np.ascontiguousarray(each) for name, each in values.items()}))
