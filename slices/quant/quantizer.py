"""llama.cpp's quantizer in a child process: its parameters, its output, its errors.

The other end is `slices.quant.child`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from slices.errors import RunFailed
from slices.files.child_process import run_child
from slices.gguf.tensor_types import type_number
from slices.progress import Progress, no_progress
from slices.quant.recipe import Recipe
from slices.quant.types import find_type

_CHILD = "slices.quant.child"
NEXT = "next"  # the line before the types of each quantization


@dataclass(frozen=True)
class QuantizeParams:
    """A quantization, as JSON for the child. `has_imatrix`: there is an importance matrix, if only later."""

    source: str
    target: str
    ftype: int
    tensor_types: tuple[tuple[str, int], ...]
    pure: bool
    has_imatrix: bool
    threads: int = 1
    imatrix: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def make_params(
    source: Path, target: Path, recipe: Recipe, threads: int = 1, imatrix: Path | None = None,
    has_imatrix: bool = False, metadata: Mapping[str, str] | None = None,
) -> QuantizeParams:  # fmt: skip
    """The parameters of `recipe`; `imatrix` is a safetensors file of float32 vectors by tensor."""
    types = tuple((pattern, type_number(type)) for pattern, type in recipe.tensor_types)
    file = None if imatrix is None else str(imatrix)
    return QuantizeParams(
        source=str(source),
        target=str(target),
        ftype=find_type(recipe.type).ftype,
        tensor_types=types,
        pure=recipe.pure,
        has_imatrix=has_imatrix or file is not None,
        threads=threads,
        imatrix=file,
        metadata=dict(metadata or {}),
    )


def plan_types(params_list: Sequence[QuantizeParams]) -> list[dict[str, str]]:
    """The ggml type that every tensor would get, by name, for each quantization. Reads headers only.

    Raises:
        RunFailed: llama.cpp failed, or its log is not understood.
    """
    planned: list[dict[str, str]] = []

    def keep(line: str) -> None:
        if line == NEXT:
            planned.append({})
            return
        name, _, type = line.partition(" ")
        if not planned or not type:
            raise RunFailed(f"a plan of types has a line that means nothing: {line!r}")
        planned[-1][name] = type

    run_child(_CHILD, ["plan", *(json.dumps(asdict(params)) for params in params_list)], keep)
    if len(planned) != len(params_list):
        raise RunFailed(f"expected {len(params_list)} plans of types, found {len(planned)}")
    return planned


def run_quantizer(params: QuantizeParams, stage: str = "quantize", progress: Progress = no_progress) -> None:
    """Quantize. `progress` counts tensors of `stage`.

    Raises:
        RunFailed: llama.cpp failed; what it wrote so far is left at the target.
    """

    def on_line(line: str) -> None:
        done, total = line.split()
        progress(stage, int(done), int(total))

    run_child(_CHILD, ["quantize", json.dumps(asdict(params))], on_line)


def verify_tokens(file: Path, folder: Path) -> None:
    """Check that `file`, of which only the header need be there, tokenizes as `folder`'s tokenizer does.

    Raises:
        RunFailed: it does not.
    """
    run_child(_CHILD, ["tokens", str(file), str(folder)])


def verify(file: Path, folder: Path) -> None:
    """Load `file` and run a text through it, whose tokens must be those of `folder`'s tokenizer.

    Raises:
        RunFailed: it does not load, its tokens differ, or a probability is not finite.
    """
    run_child(_CHILD, ["verify", str(file), str(folder)])
