"""The types that a model can be quantized to, and the types that single tensors can be given.

The first are llama.cpp's mixes (`llama_ftype`): the type of each tensor is llama.cpp's choice, changed by a
recipe (`slices.quant.recipe`). The second are ggml's, by the names of gguf-py. What a type weighs depends on
the model: `slices.quant.size`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from slices.errors import Unsupported


@dataclass(frozen=True)
class QuantType:
    """A mix: its `llama_ftype` number, and whether it uses an importance matrix."""

    name: str
    ftype: int
    imatrix: Literal["needed", "helps", "ignored"]


# Smallest first, where 256 divides every row. Where it does not, measure: `slices.quant.size.predict_size`.
TYPES: Mapping[str, QuantType] = {
    each.name: each
    for each in (
        QuantType("IQ2_M", 29, "needed"),
        QuantType("Q2_K", 10, "helps"),
        QuantType("Q3_K_S", 11, "helps"),
        QuantType("Q3_K_M", 12, "helps"),
        QuantType("IQ4_XS", 30, "helps"),
        QuantType("Q4_K_M", 15, "helps"),
        QuantType("Q5_K_M", 17, "helps"),
        QuantType("Q6_K", 18, "helps"),
        QuantType("Q8_0", 7, "ignored"),
        QuantType("BF16", 32, "ignored"),
    )
}
# The mixes that plain quants of a whole model are made of: also those of fewer bits and of smaller steps.
MIXES: Mapping[str, QuantType] = {
    each.name: each
    for each in (
        QuantType("IQ1_S", 24, "needed"),
        QuantType("IQ1_M", 31, "needed"),
        QuantType("IQ2_XXS", 19, "needed"),
        QuantType("IQ2_XS", 20, "needed"),
        QuantType("IQ2_S", 28, "needed"),
        QuantType("IQ3_XXS", 23, "needed"),
        QuantType("IQ3_S", 26, "helps"),
        QuantType("IQ3_M", 27, "helps"),
        QuantType("IQ4_NL", 25, "helps"),
        QuantType("Q4_K_S", 14, "helps"),
        QuantType("Q5_K_S", 16, "helps"),
        *TYPES.values(),
    )
}
# What llama.cpp quantizes to only by an importance matrix; without one it refuses, or its process ends.
IMATRIX_TYPES = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS")
TENSOR_TYPES = (
    *IMATRIX_TYPES, "Q2_K", "Q3_K", "IQ3_S", "IQ4_NL", "IQ4_XS", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1",
    "Q5_K", "Q6_K", "Q8_0", "F16", "BF16", "F32",
)  # fmt: skip
EMBEDDING_TYPES = tuple(name for name in TENSOR_TYPES if name not in IMATRIX_TYPES)
LLAMA_CPP = "llama.cpp"  # the embedding type that llama.cpp chooses, whatever the default


def find_type(name: str) -> QuantType:
    """The mix of that name, of `MIXES`.

    Raises:
        Unsupported: there is none; those of `TYPES` are named.
    """
    if name not in MIXES:
        raise Unsupported(f"the type {name!r} is not supported; expected one of {', '.join(TYPES)}")
    return MIXES[name]
