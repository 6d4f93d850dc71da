"""Importance matrices made up for the tensors of a pico."""

from pathlib import Path

import numpy as np

from slices.anatomy import read_anatomy
from slices.checkpoint import open_checkpoint
from slices.quant.coverage import executed_matrices
from slices.quant.imatrix_file import Imatrix


def made_up_imatrix(folder: Path, seed: int = 3) -> Imatrix:
    """For every matrix that is multiplied: a few columns that matter much, the others little."""
    random = np.random.default_rng(seed)
    values = {}
    for name, tensor in executed_matrices(read_anatomy(open_checkpoint(str(folder)).config)).items():
        columns = random.uniform(0.01, 0.1, tensor.shape[-1]).astype(np.float32)
        columns[random.permutation(len(columns))[: len(columns) // 8]] = 100
        values[name] = np.tile(columns, tensor.shape[0] if len(tensor.shape) == 3 else 1)
    return Imatrix(values, {name: np.array([64]) for name in values}, 64, "0" * 64)
