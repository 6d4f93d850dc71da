"""The `--layers` specification, parsed into layer indices. The plan checks whether the cut is valid."""

import re
from collections.abc import Sequence

from slices.errors import InvalidCut
from slices.families.table import FULL, SLIDING

_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


def select_layers(spec: str, types: Sequence[str]) -> tuple[int, ...]:
    """Indices of the layers that SPEC keeps, ascending.

    Args:
        spec: all | swa | full | 0-23 | 0-5,11,17 | drop:12,13
        types: the attention type of each of the parent's layers.

    Raises:
        InvalidCut: SPEC is not of that form, names a layer twice or one that is not there, or keeps none.
    """
    everything = range(len(types))
    match spec:
        case "all":
            kept = list(everything)
        case "swa":
            kept = [i for i in everything if types[i] == SLIDING]
        case "full":
            kept = [i for i in everything if types[i] == FULL]
        case _ if spec.startswith("drop:"):
            dropped = set(_indices(spec.removeprefix("drop:"), spec, len(types)))
            kept = [i for i in everything if i not in dropped]
        case _:
            kept = _indices(spec, spec, len(types))
    if not kept:
        raise InvalidCut(f"--layers {spec} keeps no layer of the {len(types)}")
    return tuple(kept)


def parse_auto_count(spec: str, count: int) -> int | None:
    """How many of `count` layers `auto:N` keeps; None for `auto`, which decides by what it costs.

    Raises:
        InvalidCut: N is no number from 1 to `count`.
    """
    if spec == "auto":
        return None
    number = spec.removeprefix("auto:")
    if not (number.isascii() and number.isdigit()) or not 1 <= int(number[:9]) <= count:
        raise InvalidCut(f"--layers {spec}: expected auto, or auto:N with N from 1 to {count}")
    return int(number)


def is_auto(spec: str) -> bool:
    """Whether layers are chosen by scores."""
    return spec == "auto" or spec.startswith("auto:")


def format_layers(layers: Sequence[int]) -> str:
    """Ascending layer indices as the SPEC that selects them: 0-5,11,17."""
    runs: list[list[int]] = []
    for index in layers:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(f"{first}-{last}" if first < last else str(first) for first, last in runs)


def _indices(text: str, spec: str, count: int) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        range_ = _RANGE.fullmatch(part.strip())
        if range_ is None:
            raise InvalidCut(
                f"--layers {spec}: {part!r} is no layer; expected all, swa, full, 0-23, 0-5,11 or drop:12,13"
            )
        first, last = int(range_[1]), int(range_[2] or range_[1])
        if first > last:
            raise InvalidCut(f"--layers {spec}: {part.strip()} runs backwards; expected {last}-{first}")
        if last >= count:
            raise InvalidCut(f"--layers {spec}: {part.strip()} is outside the parent's layers 0-{count - 1}")
        found += range(first, last + 1)
    if len(set(found)) != len(found):
        twice = next(i for i in found if found.count(i) > 1)
        raise InvalidCut(f"--layers {spec}: layer {twice} is named twice")
    return sorted(found)
