"""What a quantization makes of each matrix of a slice, before it is written: the values that will be served.

A plan says by a matrix's name in the slice's files which ggml type llama.cpp would give it, and by which
column weights it would be rounded. Vectors are float32 in every GGUF and are in no plan.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slices.architecture.anatomy import Anatomy, match_tensors, read_anatomy
from slices.checkpoint import open_checkpoint
from slices.dialects.table import Blocks
from slices.errors import Unsupported
from slices.export import DIALECTS, gguf_names, write_gguf
from slices.gguf.header import read_gguf_header
from slices.gguf.pad_rows import padded_size
from slices.quant.fit import fit_imatrix
from slices.quant.imatrix_file import Imatrix
from slices.quant.recipe import Recipe, check_imatrix
from slices.quant.requantize import Floats, requantize_in_place
from slices.quant.size import model_name, predict_from_export


@dataclass(frozen=True)
class PlannedTensor:
    """A matrix that is quantized.

    Attributes:
        gguf_name: its name in the GGUF.
        type: ggml's type there.
        dtype: of the slice's file, "BF16" as a rule; what is quantized is rounded to it, and then to bf16.
        importance: weights of its columns, as `fit_imatrix` gives them; None for none.
        columns: where its columns lie in a row of the GGUF, int64, and the columns of that row; None where
            the rows are the same. Zeros lie between them, for identity layers, or behind them, for padding.
    """

    gguf_name: str
    type: str
    dtype: str = "BF16"
    importance: Floats | None = None
    columns: tuple[NDArray[np.int64], int] | None = None

    def requantize(self, values: Floats, threads: int = 1) -> None:
        """Round `values`, float32 in the tensor's shape and on bf16's grid, to what the GGUF dequantizes to.

        Raises:
            RunFailed: a value is not finite.
        """
        if self.columns is None:
            requantize_in_place(values, self.type, self.importance, threads)
            return
        places, width = self.columns
        wide = np.zeros((*values.shape[:-1], width), np.float32)
        wide[..., places] = values
        requantize_in_place(wide, self.type, self.importance, threads)
        values[...] = wide[..., places]


@dataclass(frozen=True)
class QuantizationPlan:
    """The tensors of a slice that `recipe` quantizes, by their names in its files."""

    recipe: Recipe
    tensors: Mapping[str, PlannedTensor]

    @property
    def types(self) -> dict[str, str]:
        """ggml's type of every matrix by its name in the GGUF."""
        return {each.gguf_name: each.type for each in self.tensors.values()}


def plan_quantization(folder: Path, recipe: Recipe, imatrix: Imatrix | None = None) -> QuantizationPlan:
    """What `slices.quant.quantize.quantize` would make of the slice in `folder`, by llama.cpp's dry run.

    Raises:
        Unsupported: the recipe needs an importance matrix, or llama.cpp cannot express the slice.
        BadCheckpoint: the importance matrix is of another slice.
        RunFailed: llama.cpp failed.
    """
    check_imatrix(recipe, imatrix is not None)
    if recipe.type == "BF16":
        raise Unsupported("BF16 rounds nothing: expected a quantized type")
    checkpoint = open_checkpoint(folder)
    anatomy = read_anatomy(checkpoint.config)
    with tempfile.TemporaryDirectory(prefix="mom-") as scratch:
        headers = Path(scratch) / "headers.gguf"
        write_gguf(folder, headers, model_name(folder), data=False, pad_rows=recipe.pad_rows)
        types = predict_from_export(headers, recipe, imatrix is not None).types
        importance = fit_imatrix(imatrix, read_gguf_header(headers), types) if imatrix else {}
    names, entries = gguf_names(anatomy), match_tensors(checkpoint, anatomy)[0]
    dialect = DIALECTS[anatomy.family.name]
    blocks = dialect.arrange(anatomy)
    tensors = {
        entry.name: PlannedTensor(
            gguf_name=names[name],
            type=types[names[name]],
            dtype=entry.dtype,
            importance=importance.get(names[name]),
            columns=_columns(name, anatomy, blocks, recipe.pad_rows),
        )
        for name, entry in entries.items()
        if len(entry.shape) > 1 and names.get(name) in types
    }
    return QuantizationPlan(recipe=recipe, tensors=tensors)


def _columns(
    name: str, anatomy: Anatomy, blocks: Blocks, pad_rows: bool
) -> tuple[NDArray[np.int64], int] | None:
    """Where a tensor's columns lie before padding, or among the parts of identity layers."""
    axes = anatomy.tensors[name].rule.axes
    if pad_rows and axes[-1] == "hidden":
        return np.arange(anatomy.dims.hidden), padded_size(anatomy, DIALECTS[anatomy.family.name])
    if axes[-1] != "ple_layers" or all(block.source is not None for block in blocks):
        return None
    part = anatomy.dims.ple
    at = {block.source: index for index, block in enumerate(blocks) if block.source is not None}
    starts = np.array([at[source] * part for source in sorted(at)], np.int64)
    return (starts[:, None] + np.arange(part)).reshape(-1), len(blocks) * part
