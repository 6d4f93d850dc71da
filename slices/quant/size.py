"""The predicted size of a quantized file, to the byte.

llama.cpp reports the type that each tensor would get, in a dry run that reads headers only; the rest is
arithmetic: its metadata and its tensors' names take as many bytes as in the export; tensors are padded.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from struct import pack

from slices import manifest
from slices.errors import RunFailed, Unsupported
from slices.export import write_gguf
from slices.gguf.header import GGUFHeader, GGUFTensor, read_gguf_header
from slices.gguf.tensor_types import EMBEDDING_TENSORS, row_bytes, type_name
from slices.quant.quantizer import make_params, plan_types
from slices.quant.recipe import NOTHING, Recipe, check_imatrix, gguf_metadata, make_recipe
from slices.quant.types import IMATRIX_TYPES, LLAMA_CPP

_ALIGNMENT = 32  # bytes: what llama.cpp writes
_SHA256 = "0" * 64
_ANY_MIX = "Q4_K_M"
_BLOCK = 256  # numbers in a block of the k-quants and most i-quants


@dataclass(frozen=True)
class SizePrediction:
    """The size of a recipe's file; `types` are ggml's, by tensor; `export_bytes`: of the BF16 export."""

    bytes: int
    bits_per_weight: float
    types: Mapping[str, str]
    export_bytes: int
    notes: tuple[str, ...] = ()


def predict_size(
    folder: Path,
    type: str,
    embedding_type: str | None = None,
    overrides: Mapping[str, str] = NOTHING,
    pure: bool = False,
    with_imatrix: bool = False,
    pad_rows: bool = False,
) -> SizePrediction:
    """The size of what `slices.quant.quantize.quantize` would write with the same arguments.

    Writes headers only, to a temporary file.

    Args:
        with_imatrix: whether there will be an importance matrix, on which some types depend.

    Raises:
        SliceError: as `quantize` does before it begins.
    """
    recipe = make_recipe(type, embedding_type, overrides, pure, pad_rows)
    check_imatrix(recipe, with_imatrix)
    found = _predict(folder, recipe, with_imatrix)
    if pad_rows:
        _check_padding_pays(folder, recipe, with_imatrix, found)
    return found


def check_padding_pays(folder: Path, recipe: Recipe, with_imatrix: bool) -> None:
    """Refuse `--pad-rows` where the padded file is no smaller.

    Raises:
        Unsupported: it is not; the bytes of both are named.
    """
    _check_padding_pays(folder, recipe, with_imatrix, _predict(folder, recipe, with_imatrix))


def _check_padding_pays(folder: Path, recipe: Recipe, with_imatrix: bool, padded: SizePrediction) -> None:
    plain = _predict(folder, replace(recipe, pad_rows=False), with_imatrix)
    if padded.bytes >= plain.bytes:
        raise Unsupported(
            f"--pad-rows does not pay for {recipe.type}: {padded.bytes:,} bytes with it, "
            f"{plain.bytes:,} without"
        )


def _predict(folder: Path, recipe: Recipe, with_imatrix: bool) -> SizePrediction:
    with tempfile.TemporaryDirectory(prefix="mom-") as folder_:
        path = Path(folder_) / "headers.gguf"
        write_gguf(folder, path, model_name(folder), data=False, pad_rows=recipe.pad_rows)
        return predict_from_export(path, recipe, with_imatrix)


def model_name(folder: Path) -> str:
    """The model name in the GGUF: the slice's, of a plain checkpoint the folder's."""
    return manifest.read(folder).name if (folder / manifest.FILE).is_file() else folder.resolve().name


def predict_from_export(exported: Path, recipe: Recipe, with_imatrix: bool) -> SizePrediction:
    """The same from a BF16 GGUF, of which only the headers need to exist.

    Raises:
        Unsupported: a tensor's type needs an importance matrix, and there will be none.
        RunFailed: llama.cpp failed.
    """
    header = read_gguf_header(exported)
    (types,) = _planned(exported, header, [recipe], with_imatrix)
    _check_weighted(types, with_imatrix)
    return _prediction(exported, header, recipe, types, with_imatrix)


def predict_sizes(
    exported: Path, recipes: Sequence[Recipe], with_imatrix: bool
) -> list[SizePrediction | None]:
    """The same for several recipes; None where one needs an importance matrix and has none.

    Raises:
        RunFailed: llama.cpp failed.
    """
    header = read_gguf_header(exported)
    return [
        None
        if _missing_imatrix(types, with_imatrix)
        else _prediction(exported, header, recipe, types, with_imatrix)
        for recipe, types in zip(recipes, _planned(exported, header, recipes, with_imatrix), strict=True)
    ]


def predict_products(
    exported: Path, mixes: Sequence[str], embedding_types: Sequence[str], with_imatrix: bool
) -> dict[tuple[str, str], SizePrediction]:
    """The size of every mix with every embedding type, without those that lack an importance matrix.

    llama.cpp is asked once for each mix and once for each embedding type, since neither depends on the other.

    Raises:
        RunFailed: llama.cpp failed.
    """
    header = read_gguf_header(exported)
    alone = [make_recipe(mix, LLAMA_CPP) for mix in mixes]
    tables = [make_recipe(_ANY_MIX, embedding_type) for embedding_type in embedding_types]
    planned = _planned(exported, header, [*alone, *tables], with_imatrix)
    found = {}
    for mix, types in zip(mixes, planned, strict=False):
        for embedding_type, other in zip(embedding_types, planned[len(mixes) :], strict=True):
            own = () if embedding_type == LLAMA_CPP else EMBEDDING_TENSORS
            joined = {**types, **{name: other[name] for name in own if name in other}}
            if not _missing_imatrix(joined, with_imatrix):
                recipe = make_recipe(mix, embedding_type)
                found[mix, embedding_type] = _prediction(exported, header, recipe, joined, with_imatrix)
    return found


def _planned(
    exported: Path, header: GGUFHeader, recipes: Sequence[Recipe], with_imatrix: bool
) -> list[dict[str, str]]:
    """The type of every tensor, by name, for each recipe."""
    params_list = [
        make_params(exported, exported, recipe, has_imatrix=with_imatrix)
        for recipe in recipes
        if recipe.type != "BF16"
    ]
    planned = iter(plan_types(params_list) if params_list else ())
    own = {tensor.name: type_name(tensor.type) for tensor in header.tensors}
    found = [own if recipe.type == "BF16" else next(planned) for recipe in recipes]
    for types in found:
        if missing := own.keys() ^ types.keys():
            raise RunFailed(f"llama.cpp did not say the type of every tensor, such as {min(missing)!r}")
    return found


def _prediction(
    exported: Path, header: GGUFHeader, recipe: Recipe, types: Mapping[str, str], with_imatrix: bool
) -> SizePrediction:
    size = exported.stat().st_size
    if recipe.type == "BF16":
        return SizePrediction(
            bytes=size, bits_per_weight=header.bits_per_weight, types=types, export_bytes=size
        )
    added = gguf_metadata(recipe, _SHA256 if with_imatrix else None)
    data = sum(_tensor_bytes(tensor, types) for tensor in header.tensors)
    weights = sum(tensor.weights for tensor in header.tensors)
    total = _metadata_bytes(exported, header, added) + sum(
        _padded(_tensor_bytes(tensor, types)) for tensor in header.tensors
    )
    return SizePrediction(
        bytes=total,
        bits_per_weight=8 * data / weights,
        types=types,
        export_bytes=size,
        notes=_notes(header, recipe, types),
    )


def _missing_imatrix(types: Mapping[str, str], with_imatrix: bool) -> list[str]:
    """Tensors whose type needs an importance matrix, where there is none."""
    return [] if with_imatrix else [name for name, type in types.items() if type in IMATRIX_TYPES]


def _check_weighted(types: Mapping[str, str], with_imatrix: bool) -> None:
    if missing := _missing_imatrix(types, with_imatrix):
        raise Unsupported(
            f"{missing[0]} would be {types[missing[0]]}, which needs an importance matrix "
            f"({len(missing)} such tensors): pass --imatrix domain, or choose a type of more bits"
        )


def _tensor_bytes(tensor: GGUFTensor, types: Mapping[str, str]) -> int:
    return row_bytes(types[tensor.name], tensor.shape[0]) * prod(tensor.shape[1:])


def _padded(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _metadata_bytes(path: Path, header: GGUFHeader, added: Mapping[str, str]) -> int:
    """Bytes before the first tensor: as in the export, and the metadata added.

    llama.cpp leaves out the last axes of a shape that are 1.
    """
    shorter = sum(8 * (len(tensor.shape) - _axes(tensor.shape)) for tensor in header.tensors)
    extra = sum(8 + len(key.encode()) + 4 + 8 + len(text.encode()) for key, text in added.items())
    return _padded(_header_end(path, header) - shorter + extra)


def _axes(shape: tuple[int, ...]) -> int:
    return max((index + 1 for index, side in enumerate(shape) if side > 1), default=1)


def _header_end(path: Path, header: GGUFHeader) -> int:
    """Where the description of the last tensor ends, before the padding."""
    base = min(tensor.start for tensor in header.tensors)
    last = header.tensors[-1]
    name = last.name.encode()
    axes = len(last.shape)
    entry = pack(
        f"<Q{len(name)}sI{axes}QIQ", len(name), name, axes, *last.shape, last.type, last.start - base
    )
    with path.open("rb") as file:
        start = max(0, base - len(entry) - _ALIGNMENT)
        file.seek(start)
        return start + file.read(base - start).rindex(entry) + len(entry)


def _notes(header: GGUFHeader, recipe: Recipe, types: Mapping[str, str]) -> tuple[str, ...]:
    """Tensors that get another type than requested, since block sizes must divide rows."""
    changed = [tensor for tensor in header.tensors if types[tensor.name] != type_name(tensor.type)]
    replaced: dict[tuple[str, str, int], list[str]] = {}
    for tensor in changed:
        requested, actual = recipe.override(tensor.name), types[tensor.name]
        if requested and actual != requested:
            replaced.setdefault((requested, actual, tensor.shape[0]), []).append(tensor.name)
    notes = [
        f"{_named(names)} {actual} instead of {requested}, which rows of {columns} do not fit"
        for (requested, actual, columns), names in replaced.items()
    ]
    odd = [each for each in changed if each.shape[0] % _BLOCK and not recipe.override(each.name)]
    share = sum(each.weights for each in odd) / sum(each.weights for each in header.tensors)
    if share >= 0.01 and recipe.type != "Q8_0":
        notes.append(
            f"matrices with {share:.0%} of the weights have rows that {_BLOCK} does not divide: "
            "llama.cpp gives them larger types"
        )
    return tuple(notes)


def _named(names: list[str]) -> str:
    return f"{names[0]} is" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more are"
