"""llama.cpp's quantizer in a process of its own: what it is told, what it says, how it ended.

The other end is `slices.quant.child`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from slices.errors import RunFailed
from slices.files.child_process import run_child
from slices.gguf.tensor_types import type_number
from slices.quant.recipe import Recipe
from slices.quant.types import find_type

_CHILD = "slices.quant.child"
NEXT = "next"  # the line before the types of each order
Progress = Callable[[int, int], None]  # tensors done, tensors in all


@dataclass(frozen=True)
class Order:
    """What to quantize to what. `weighted`: an importance matrix is given, be it only in the real run."""

    source: str
    target: str
    number: int
    tensor_types: tuple[tuple[str, int], ...]
    pure: bool
    weighted: bool
    threads: int = 1
    imatrix: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def make_order(
    source: Path, target: Path, recipe: Recipe, threads: int = 1, imatrix: Path | None = None,
    weighted: bool = False, metadata: Mapping[str, str] | None = None,
) -> Order:  # fmt: skip
    """The order to carry out `recipe`; `imatrix` is a safetensors file of float32 vectors by tensor."""
    types = tuple((pattern, type_number(type)) for pattern, type in recipe.tensor_types)
    file = None if imatrix is None else str(imatrix)
    return Order(
        str(source), str(target), find_type(recipe.type).number, types, recipe.pure,
        weighted or file is not None, threads, file, dict(metadata or {}),
    )  # fmt: skip


def plan_types(orders: Sequence[Order]) -> list[dict[str, str]]:
    """The ggml type that every tensor would get, by name, for each order. Writes nothing, reads headers only.

    Raises:
        RunFailed: llama.cpp gave up, or what it says is not understood.
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

    run_child(_CHILD, ["plan", *(json.dumps(asdict(order)) for order in orders)], keep)
    if len(planned) != len(orders):
        raise RunFailed(f"expected {len(orders)} plans of types, found {len(planned)}")
    return planned


def run_quantizer(order: Order, progress: Progress | None = None) -> None:
    """Carry out the order.

    Raises:
        RunFailed: llama.cpp gave up; what it wrote so far is left at the target.
    """

    def tell(line: str) -> None:
        done, total = line.split()
        if progress:
            progress(int(done), int(total))

    run_child(_CHILD, ["quantize", json.dumps(asdict(order))], tell)


def verify_tokens(file: Path, folder: Path) -> None:
    """See to it that `file`, of which only the header need be there, cuts text as `folder`'s tokenizer does.

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
