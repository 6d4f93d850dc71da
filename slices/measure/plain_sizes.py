"""The ways to quantize a whole parent, and the bytes of each: which plain quants are as small as a slice.

Sizes are predicted to the byte from the headers alone and cached in `$MOM_HOME/plain`.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

from slices.checkpoint import fingerprint, open_checkpoint
from slices.export import write_gguf
from slices.files import atomic
from slices.files.safetensors_header import parse_json_object
from slices.files.temp_files import temp_dir
from slices.gguf.tensor_types import bits_per_weight
from slices.home import home
from slices.quant.recipe import make_recipe
from slices.quant.size import SizePrediction, model_name, predict_products, predict_sizes
from slices.quant.types import LLAMA_CPP, MIXES
from slices.versions import runtime_versions

VERSION = 3  # of what `$MOM_HOME/plain` holds; entries of another are measured again
# Types of nearly the same bits may be better or worse (IQ4_XS is than Q4_0): half a bit more is better.
SURE_BITS = 0.5
# Each with every mix. Q2_K and IQ3_S become Q4_0 and IQ4_NL where 256 does not divide the rows.
EMBEDDING_TYPES = (LLAMA_CPP, "Q5_K", "Q4_K", "IQ3_S", "Q2_K")


@dataclass(frozen=True)
class PlainType:
    """A way to quantize the whole parent. `imatrix`: weighed by an importance matrix of the domain's text."""

    type: str
    embedding_type: str
    imatrix: bool = False

    @property
    def label(self) -> str:
        """Its name in a table, such as "Q3_K_M with Q4_K embeddings, imatrix"."""
        embeddings = "" if self.embedding_type == LLAMA_CPP else f" with {self.embedding_type} embeddings"
        return f"{self.type}{embeddings}{', imatrix' if self.imatrix else ''}"


def plain_identity(parent: Path) -> str:
    """The digest of the parent and of the packages that quantize and run it, in names of cached files."""
    identity = fingerprint(open_checkpoint(parent)) + runtime_versions()
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class PlainSize:
    """The bytes of a plain quant, and of the smallest other one that is surely better, if any is."""

    kind: PlainType
    bytes: int
    beaten_at: int | None

    def rivals(self, max_bytes: int) -> bool:
        """Whether it may be the best plain quant of at most `max_bytes`."""
        return self.bytes <= max_bytes and (self.beaten_at is None or self.beaten_at > max_bytes)


def plain_sizes(parent: Path, with_imatrix: bool) -> list[PlainSize]:
    """Every plain quant of the parent, the smallest first; cached.

    Args:
        with_imatrix: whether there is an importance matrix. Types that it helps are then made both with it
            and without, since weights that lie on a type's grid already may lose by it; without one, types
            that need it are left out.

    Raises:
        RunFailed: llama.cpp failed.
    """
    name = "sizes-imatrix" if with_imatrix else "sizes"
    path = home() / "plain" / f"{plain_identity(parent)}-{name}.json"
    if path.is_file() and (stored := parse_json_object(path.read_bytes(), path)).get("version") == VERSION:
        return [PlainSize(PlainType(*kind), size, beaten_at) for kind, size, beaten_at in stored["sizes"]]
    with temp_dir(path.parent) as scratch:
        predicted = _predict(parent, scratch / "header.gguf", with_imatrix)
    found = [
        PlainSize(kind, each.bytes, _beaten_at(each, predicted.values())) for kind, each in predicted.items()
    ]
    found.sort(key=lambda each: each.bytes)
    rows = [[astuple(each.kind), each.bytes, each.beaten_at] for each in found]
    atomic.write_text(path, json.dumps({"version": VERSION, "sizes": rows}, indent=1) + "\n")
    return found


def _predict(parent: Path, header: Path, with_imatrix: bool) -> dict[PlainType, SizePrediction]:
    """Every plain quant; where two give every tensor the same type, the first."""
    write_gguf(parent, header, model_name(parent), data=False)
    found: dict[tuple[bool, frozenset[tuple[str, str]]], tuple[PlainType, SizePrediction]] = {}
    for imatrix in (False, True) if with_imatrix else (False,):
        skipped = "ignored" if imatrix else "needed"
        mixes = [each.name for each in MIXES.values() if each.imatrix != skipped and each.name != "BF16"]
        sizes = predict_products(header, mixes, EMBEDDING_TYPES, imatrix)
        for (mix, embedding_type), size in sizes.items():
            kind = PlainType(mix, embedding_type, imatrix)
            found.setdefault((imatrix, frozenset(size.types.items())), (kind, size))
    [whole] = predict_sizes(header, [make_recipe("BF16")], with_imatrix=False)
    return dict(found.values()) | ({PlainType("BF16", LLAMA_CPP): whole} if whole else {})


def _beaten_at(one: SizePrediction, others: Iterable[SizePrediction]) -> int | None:
    """The bytes of the smallest file in which every tensor that differs has at least half a bit more."""
    return min((each.bytes for each in others if _is_better(each, one)), default=None)


def _is_better(one: SizePrediction, other: SizePrediction) -> bool:
    pairs = [(one.types[name], type) for name, type in other.types.items() if one.types[name] != type]
    return bool(pairs) and all(
        bits_per_weight(ours) >= bits_per_weight(theirs) + SURE_BITS for ours, theirs in set(pairs)
    )
