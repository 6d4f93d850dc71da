"""Hidden states padded with zeros, so that llama.cpp's blocks of 256 weights divide every row.

llama.cpp gives rows that 256 does not divide larger types: Gemma 3 270M's rows of 640 become Q4_0 where the
rest of the file is Q2_K. Padded to a width W, the model computes the same: it multiplies embeddings by
sqrt(W) and divides by root mean squares over W numbers, so the residual stream is s = sqrt(W / hidden) times
what it was, all norms that read it have the same root mean square and are multiplied by 1 / s, and the norms
that write to it make the factor s themselves. Only their epsilon, relative to the mean square, differs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.architecture.anatomy import Anatomy
from slices.dialects.table import Blocks, Dialect
from slices.errors import Unsupported
from slices.gguf.tensors import GGUFSource, name_tensors

BLOCK = 256  # weights in a block of the k-quants and most i-quants
HIDDEN_SIZE = "mom.hidden_size"  # metadata of a padded GGUF: the hidden size of the slice


def padded_size(anatomy: Anatomy, dialect: Dialect) -> int:
    """The padded hidden size.

    Raises:
        Unsupported: the family has other parts of that size, or the rows are multiples of 256 already.
    """
    hidden = anatomy.dims.hidden
    if not dialect.residual_norms:
        raise Unsupported(f"--pad-rows: not for {anatomy.model_type}, whose hidden sizes 256 divides")
    if hidden % BLOCK == 0:
        raise Unsupported(f"--pad-rows: {BLOCK} divides rows of {hidden} already")
    return -(-hidden // BLOCK) * BLOCK


def pad_sources(
    sources: Sequence[GGUFSource], anatomy: Anatomy, dialect: Dialect, blocks: Blocks
) -> list[GGUFSource]:
    """Every tensor of the GGUF with its hidden axes padded.

    Raises:
        Unsupported: as `padded_size`.
    """
    more = padded_size(anatomy, dialect) - anatomy.dims.hidden
    names = name_tensors(anatomy, dialect, blocks)
    rules = {there: anatomy.tensors[here].rule for here, there in names.items()}
    scale = np.float32(sqrt(anatomy.dims.hidden / (anatomy.dims.hidden + more)))
    padded = []
    for source in sources:
        rule = rules[source.name]
        factor = scale if rule.name in dialect.residual_norms else np.float32(1)
        padded.append(_padded(source, rule.axes, more, factor))
    return padded


def _padded(source: GGUFSource, axes: Sequence[str], more: int, scale: np.float32) -> GGUFSource:
    """The tensor with `more` zeros on every hidden axis; a vector is multiplied by `scale`."""
    added = [more if axis == "hidden" else 0 for axis in axes]
    shape = tuple(side + plus for side, plus in zip(source.shape, added, strict=True))

    def chunks() -> Iterator[NDArray[Any]]:
        dtype = np.dtype(np.float32)
        for part in source.chunks():
            dtype = part.dtype
            numbers = part if source.matrix else part * scale
            yield np.pad(numbers, [(0, 0)] * (part.ndim - 1) + [(0, added[-1])])
        if source.matrix and added[0]:
            yield np.zeros((added[0], *shape[1:]), dtype)

    return replace(source, shape=shape, chunks=chunks)


def pad_importance(values: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Column weights (hidden,) of a matrix whose rows are padded to `width`; zeros take any weight."""
    return np.pad(values, (0, width - len(values)), constant_values=float(values.mean()))


def padded_anatomy(anatomy: Anatomy, dialect: Dialect) -> Anatomy:
    """The anatomy as the settings of the padded GGUF tell of it."""
    return replace(anatomy, dims=replace(anatomy.dims, hidden=padded_size(anatomy, dialect)))
