"""A quantization recipe: llama.cpp's mix, and the tensors that get another type.

llama.cpp takes the first pattern that matches a tensor's name and otherwise follows its mix. The order of
patterns: the caller's overrides, the embeddings, the small sensitive matrices. A type whose block size does
not divide a tensor's rows is replaced by a larger one, as in llama.cpp's own mixes (`slices.quant.size`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from slices.errors import BadConfig, Unsupported
from slices.gguf.tensor_types import EMBEDDING_TENSORS
from slices.quant.types import EMBEDDING_TYPES, LLAMA_CPP, TENSOR_TYPES, find_type

# Type of the embeddings by mix; one that is not named takes llama.cpp's own choice, Q6_K at least.
# Measured (docs/log.md): below Q4_K_M the blocks lose so much more that Q4_K embeddings save a tenth (of a
# cut vocabulary) to a quarter of the bytes for little; from Q4_K_M on the embeddings would lose the most.
DEFAULT_EMBEDDING_TYPES: Mapping[str, str] = dict.fromkeys(
    ("IQ2_M", "Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_XS"), "Q4_K"
)
NOTHING: Mapping[str, str] = MappingProxyType({})
# Gemma 4's gate and projection of the per-layer embedding: 55 M parameters of E4B's 7.5 G, on the path of
# every layer. In Q8_0 they cost 59 MB; in bf16 they would cost 110, in Q4_K 31.
SENSITIVE = r"^blk\.\d+\.(inp_gate|proj)\.weight$"
SENSITIVE_TYPE = "Q8_0"
_MAX_OVERRIDE = 127  # bytes: llama.cpp's limit of a metadata value in a KV override


@dataclass(frozen=True)
class Recipe:
    """A mix and its exceptions. `embedding_type` None leaves the embeddings to llama.cpp.

    `pad_rows`: hidden states are padded to a multiple of 256 first (`slices.gguf.pad_rows`).
    """

    type: str
    embedding_type: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    pure: bool = False
    pad_rows: bool = False

    @property
    def tensor_types(self) -> tuple[tuple[str, str], ...]:
        """Regular expressions on tensors' names, and the type of what they find; the first counts."""
        if self.type == "BF16":
            return ()
        embeddings = [
            (f"^{re.escape(name)}$", self.embedding_type) for name in EMBEDDING_TENSORS if self.embedding_type
        ]
        kept = [] if self.pure else [(SENSITIVE, SENSITIVE_TYPE)]
        return (*self.overrides.items(), *embeddings, *kept)

    def override(self, tensor: str) -> str | None:
        """The type that a pattern gives this tensor, None where the mix decides."""
        return next((type for pattern, type in self.tensor_types if re.search(pattern, tensor)), None)


def make_recipe(
    type: str,
    embedding_type: str | None = None,
    overrides: Mapping[str, str] = NOTHING,
    pure: bool = False,
    pad_rows: bool = False,
) -> Recipe:
    """A checked recipe.

    Args:
        type: one of `slices.quant.types.TYPES`.
        tables: ggml's type of the embeddings, "llama.cpp" for its own choice, None for our default.
        overrides: regular expressions on GGUF tensor names -> ggml's type.
        pure: one type for every matrix, without the mix's exceptions and without ours.
        pad_rows: pad hidden states to a multiple of 256.

    Raises:
        Unsupported: a type is unknown, or BF16 is to have exceptions, which nothing would carry out.
        BadConfig: an override is no regular expression, or is too long.
    """
    find_type(type)
    if type == "BF16" and (embedding_type not in (None, LLAMA_CPP) or overrides or pure):
        raise Unsupported("BF16 leaves every matrix as it is: it takes no type for embeddings or tensors")
    if embedding_type is None and not pure:
        embedding_type = DEFAULT_EMBEDDING_TYPES.get(type)
    elif embedding_type == LLAMA_CPP:
        embedding_type = None
    if embedding_type is not None and embedding_type not in EMBEDDING_TYPES:
        raise Unsupported(
            f"the embeddings cannot be {embedding_type!r}; expected one of {_listed(EMBEDDING_TYPES)}"
        )
    for pattern, wanted in overrides.items():
        _check_override(pattern, wanted)
    return Recipe(
        type=type,
        embedding_type=embedding_type,
        overrides=dict(overrides),
        pure=pure,
        pad_rows=pad_rows,
    )


def _check_override(pattern: str, wanted: str) -> None:
    if wanted not in TENSOR_TYPES:
        raise Unsupported(f"no tensor can be {wanted!r}; expected one of {_listed(TENSOR_TYPES)}")
    try:
        re.compile(pattern)
    except re.error as error:
        raise BadConfig(f"the override {pattern!r} is no regular expression: {error}") from None
    if len(f"{pattern}={wanted}".encode()) > _MAX_OVERRIDE or "\0" in pattern:
        raise BadConfig(
            f"the override {pattern!r} is too long: expected at most {_MAX_OVERRIDE} bytes with its type"
        )
    if wanted not in EMBEDDING_TYPES and any(re.search(pattern, name) for name in EMBEDDING_TENSORS):
        raise Unsupported(f"the override {pattern!r} would make an embedding {wanted}, which takes an "
                          "importance matrix that an embedding does not have")  # fmt: skip


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def check_imatrix(recipe: Recipe, given: bool) -> None:
    """Refuse a mix that needs an importance matrix and gets none.

    Raises:
        Unsupported: it does.
    """
    if find_type(recipe.type).imatrix == "needed" and not given:
        raise Unsupported(
            f"{recipe.type} needs an importance matrix: pass --imatrix domain, or choose a type of more bits"
        )


def gguf_metadata(recipe: Recipe, imatrix_sha256: str | None = None) -> dict[str, str]:
    """The quantized GGUF's metadata of the recipe, beside what the export has of its weights."""
    if recipe.type == "BF16":
        return {}
    metadata = {
        "mom.quantize.type": recipe.type,
        "mom.quantize.embedding_type": recipe.embedding_type or LLAMA_CPP,
    }
    if recipe.pure:
        metadata["mom.quantize.pure"] = "true"
    for index, (pattern, wanted) in enumerate(recipe.overrides.items()):
        metadata[f"mom.quantize.override.{index}"] = f"{pattern}={wanted}"
    if imatrix_sha256:
        metadata["mom.quantize.imatrix_sha256"] = imatrix_sha256
    return metadata
