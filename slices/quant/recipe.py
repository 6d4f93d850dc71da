"""What a quantized file is to be made of: the mix, and which tensors are to differ from it.

llama.cpp takes the first pattern that finds a tensor's name and otherwise follows its mix. Ours come in this
order: the caller's, the vocabulary tables, the small sensitive matrices. A type whose blocks do not fit into
a tensor's rows gives way to a larger one, as in llama.cpp's own mixes; `slices.quant.size` foretells it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from slices.errors import BadConfig, Unsupported
from slices.gguf.tensor_types import TABLES
from slices.quant.types import TABLE_TYPES, TENSOR_TYPES, find_type

# Type of the vocabulary tables by mix; one that is not named takes llama.cpp's own choice, Q6_K at least.
# Measured (docs/log.md): below Q4_K_M the blocks lose so much more that Q4_K tables save a tenth (of a cut
# vocabulary) to a quarter of the bytes for little; from Q4_K_M on the tables would lose the most.
DEFAULT_TABLES: Mapping[str, str] = dict.fromkeys(("IQ2_M", "Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_XS"), "Q4_K")
LLAMA_CPP = "llama.cpp"  # said for --tables: llama.cpp's own choice, whatever the default
NOTHING: Mapping[str, str] = MappingProxyType({})
# Gemma 4's gate and projection of the per-layer embedding: 55 M parameters of E4B's 7.5 G, on the path of
# every layer. In Q8_0 they cost 59 MB; in bf16 they would cost 110, in Q4_K 31.
SENSITIVE = r"^blk\.\d+\.(inp_gate|proj)\.weight$"
SENSITIVE_TYPE = "Q8_0"
_TEXT = 127  # bytes: as long as llama.cpp takes a metadata value that is given beside the file


@dataclass(frozen=True)
class Recipe:
    """A mix and its exceptions. `tables` None leaves the vocabulary tables to llama.cpp."""

    type: str
    tables: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    pure: bool = False

    @property
    def tensor_types(self) -> tuple[tuple[str, str], ...]:
        """Regular expressions on tensors' names, and the type of what they find; the first counts."""
        if self.type == "BF16":
            return ()
        tables = [(f"^{re.escape(name)}$", self.tables) for name in TABLES if self.tables]
        kept = [] if self.pure else [(SENSITIVE, SENSITIVE_TYPE)]
        return (*self.overrides.items(), *tables, *kept)

    def asked(self, tensor: str) -> str | None:
        """The type that was asked for this tensor by name, if any."""
        return next((type for pattern, type in self.tensor_types if re.search(pattern, tensor)), None)


def make_recipe(
    type: str, tables: str | None = None, overrides: Mapping[str, str] = NOTHING, pure: bool = False
) -> Recipe:
    """A checked recipe.

    Args:
        type: one of `slices.quant.types.TYPES`.
        tables: ggml's type of the vocabulary tables, "llama.cpp" for its own choice, None for our default.
        overrides: regular expressions on GGUF tensor names -> ggml's type.
        pure: one type for every matrix, without the mix's exceptions and without ours.

    Raises:
        Unsupported: a type is unknown, or BF16 is to have exceptions, which nothing would carry out.
        BadConfig: an override is no regular expression, or is too long.
    """
    find_type(type)
    if type == "BF16" and (tables not in (None, LLAMA_CPP) or overrides or pure):
        raise Unsupported("BF16 leaves every matrix as it is: it takes no type for tables or single tensors")
    if tables is None and not pure:
        tables = DEFAULT_TABLES.get(type)
    elif tables == LLAMA_CPP:
        tables = None
    if tables is not None and tables not in TABLE_TYPES:
        raise Unsupported(f"no vocabulary table can be {tables!r}; expected one of {_listed(TABLE_TYPES)}")
    for pattern, wanted in overrides.items():
        _check_override(pattern, wanted)
    return Recipe(type, tables, dict(overrides), pure)


def _check_override(pattern: str, wanted: str) -> None:
    if wanted not in TENSOR_TYPES:
        raise Unsupported(f"no tensor can be {wanted!r}; expected one of {_listed(TENSOR_TYPES)}")
    try:
        re.compile(pattern)
    except re.error as error:
        raise BadConfig(f"the override {pattern!r} is no regular expression: {error}") from None
    if len(f"{pattern}={wanted}".encode()) > _TEXT or "\0" in pattern:
        raise BadConfig(f"the override {pattern!r} is too long: expected at most {_TEXT} bytes with its type")
    if wanted not in TABLE_TYPES and any(re.search(pattern, table) for table in TABLES):
        raise Unsupported(f"the override {pattern!r} would make a vocabulary table {wanted}, which takes an "
                          "importance matrix that a table does not have")  # fmt: skip


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def check_imatrix(recipe: Recipe, given: bool) -> None:
    """Refuse a mix that needs an importance matrix and gets none.

    Raises:
        Unsupported: so it is.
    """
    if find_type(recipe.type).imatrix == "needed" and not given:
        raise Unsupported(
            f"{recipe.type} needs an importance matrix: pass --imatrix domain, or choose a type of more bits"
        )


def gguf_metadata(recipe: Recipe, imatrix_sha256: str | None = None) -> dict[str, str]:
    """What the quantized GGUF says of its making, beside what the export says of its weights."""
    if recipe.type == "BF16":
        return {}
    said = {"mom.quantize.type": recipe.type, "mom.quantize.tables": recipe.tables or LLAMA_CPP}
    if recipe.pure:
        said["mom.quantize.pure"] = "true"
    for index, (pattern, wanted) in enumerate(recipe.overrides.items()):
        said[f"mom.quantize.override.{index}"] = f"{pattern}={wanted}"
    if imatrix_sha256:
        said["mom.quantize.imatrix_sha256"] = imatrix_sha256
    return said
