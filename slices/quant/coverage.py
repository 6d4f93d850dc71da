"""What share of a model an importance matrix speaks of: covered / executed quantizable matrices.

Quantizable is what llama.cpp's quantizer takes (`tensor_allows_quantization` in its llama-quant.cpp, as far
as it concerns these families); executed is what is multiplied: not the K/V of layers that read another's,
and not the tables, which are looked up (as the output layer the embedding is multiplied too, but neither
llama.cpp nor we measure what enters it). Other tools divide by all tensors of the file and so report about
half of it as missing; `explain_coverage` says so. Runs nothing, knows names and shapes only.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from slices.architecture.anatomy import Anatomy, TensorSpec
from slices.export import DIALECTS, gguf_names

_KEPT = ("_norm.weight", "ffn_gate_inp.weight", "per_layer_model_proj")  # parts of names left as they are
_EXECUTED = "matrices that are multiplied"
_VECTORS, _TABLES = "norms and other vectors", "vocabulary tables, which are looked up"
_LEFT, _DEAD = "matrices that llama.cpp never quantizes", "K/V tensors of sharing layers, never executed"


@dataclass(frozen=True)
class Coverage:
    """`missing` are names in the GGUF; `others` counts what else the file stores, by what it is."""

    executed: int
    missing: tuple[str, ...]
    others: Mapping[str, int]

    @property
    def covered(self) -> int:
        """Executed matrices that the importance matrix has an entry for."""
        return self.executed - len(self.missing)

    @property
    def stored(self) -> int:
        """All tensors of the file."""
        return self.executed + sum(self.others.values())

    @property
    def share(self) -> float:
        """Covered / executed: 1 is all."""
        return self.covered / self.executed


def quantizable(name: str, axes: int) -> bool:
    """Whether llama.cpp quantizes a tensor of this name in a GGUF."""
    return axes > 1 and name.endswith("weight") and not any(part in name for part in _KEPT)


def executed_matrices(anatomy: Anatomy) -> dict[str, TensorSpec]:
    """The matrices that are both quantized and multiplied, by their name in the GGUF.

    Raises:
        Unsupported: llama.cpp cannot express the model.
    """
    names = gguf_names(anatomy)
    return {
        names[tensor.name]: tensor
        for tensor in anatomy.tensors.values()
        if tensor.name in names and _kind(tensor, names[tensor.name]) == _EXECUTED
    }


def measure_coverage(
    anatomy: Anatomy, entries: Collection[str], present: Collection[str] | None = None
) -> Coverage:
    """How much of a model the entries of an importance matrix cover.

    Args:
        entries: names in the GGUF, as in `Imatrix.values`.
        present: the tensors that the file stores, by their name without prefix; by default all that it
            may, dead K/V included, as in the published checkpoints and their GGUFs.

    Raises:
        Unsupported: llama.cpp cannot express the model.
    """
    dialect = DIALECTS[anatomy.family.name]
    executed, names = executed_matrices(anatomy), gguf_names(anatomy)
    stored = [each for each in anatomy.tensors.values() if present is None or each.name in present]
    others = Counter(_kind(tensor, names[tensor.name]) for tensor in stored)
    del others[_EXECUTED]
    others[_VECTORS] += len(dialect.vectors(anatomy, dialect.arrange(anatomy)))
    missing = tuple(name for name in executed if name not in entries)
    return Coverage(len(executed), missing, {kind: count for kind, count in others.items() if count})


def explain_coverage(coverage: Coverage) -> str:
    """The coverage in words, with what tools that divide by all tensors would say, and why that is wrong."""
    found = (
        f"The importance matrix covers {coverage.covered} of {coverage.executed} quantizable matrices that "
        f"are executed ({coverage.share:.0%})"
    )
    if coverage.missing:
        found += f"; without one: {', '.join(coverage.missing[:3])}{' ...' * (len(coverage.missing) > 3)}"
    others = ", ".join(f"{kind} ({count})" for kind, count in coverage.others.items())
    return (
        f"{found}. Tools that divide by all {coverage.stored} tensors of the file show "
        f"{coverage.covered / coverage.stored:.0%}: an artefact of counting, since the others are {others}."
    )


def _kind(tensor: TensorSpec, name: str) -> str:
    if tensor.dead:
        return _DEAD
    if len(tensor.shape) == 1:
        return _VECTORS
    if tensor.rule.part != "decoder":
        return _TABLES
    return _EXECUTED if quantizable(name, len(tensor.shape)) else _LEFT
