"""The constraints of an architecture on a cut, and the nearest valid cut to one that violates them.

Works on layers, rows and widths, not on tensors or files. An error names the violated rule and the layers.

The nearest valid cut changes the fewest layers; of two that change as many, the one that adds layers. A
missing donor costs one layer to add and at least one to drop (each layer that reads from it), so adding
the missing donors is always nearest, and no donor needs another.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slices.architecture.anatomy import Anatomy
from slices.architecture.layer_spec import format_layers
from slices.errors import InvalidCut, Unsupported
from slices.families.table import Layer
from slices.tokenizer.files import token_ids

BLOCKS = (256, 32)  # numbers in a block of llama.cpp's k-quants, and of its plain ones
ID_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Repair:
    """How a cut was changed to be valid."""

    added: tuple[int, ...]
    dropped: tuple[int, ...] = ()

    def to_json(self) -> dict[str, list[int]]:
        """As `slice.json` records it."""
        return {"added": list(self.added), "dropped": list(self.dropped)}

    def __str__(self) -> str:
        return " and ".join(
            f"{verb} {format_layers(layers)}"
            for verb, layers in (("adds", self.added), ("drops", self.dropped))
            if layers
        )


def check_layers(anatomy: Anatomy, layers: Sequence[int]) -> None:
    """Refuse a set of layers in which a layer would read another K/V than in the parent.

    Raises:
        InvalidCut: a kept layer shares the K/V of one that is not kept; names the rule, both, and the
            nearest valid cut.
    """
    missing = _missing_donors(anatomy, layers)
    if not missing:
        return
    violations = "; ".join(_orphans(anatomy, layers, donor) for donor in missing)
    nearest, repair = nearest_valid_layers(anatomy, layers)
    raise InvalidCut(
        f"the rule of donors: {violations}. The nearest valid cut is --layers {format_layers(nearest)} "
        f"({repair}); --repair takes it"
    )


def nearest_valid_layers(anatomy: Anatomy, layers: Sequence[int]) -> tuple[tuple[int, ...], Repair | None]:
    """The valid set that differs in the fewest layers, and how; None where `layers` is valid itself."""
    missing = _missing_donors(anatomy, layers)
    return tuple(sorted({*layers, *missing})), Repair(tuple(missing)) if missing else None


def removable(anatomy: Anatomy, layers: Iterable[int]) -> tuple[int, ...]:
    """The kept layers that may be removed next: all whose K/V no other kept layer reads."""
    kept = list(layers)
    read = {anatomy.layers[i].donor for i in kept}
    return tuple(i for i in kept if i not in read)


def _missing_donors(anatomy: Anatomy, layers: Sequence[int]) -> list[int]:
    donors = {donor for i in layers if (donor := anatomy.layers[i].donor) is not None}
    return sorted(donors - set(layers))


def _orphans(anatomy: Anatomy, layers: Sequence[int], donor: int) -> str:
    """The layers that read the K/V of a missing donor, and the K/V that they would get instead."""
    kind = anatomy.layers[donor].type
    readers = [i for i in layers if anatomy.layers[i].donor == donor]
    others = [i for i in layers if anatomy.layers[i].type == kind and not anatomy.layers[i].shared]
    fate = (
        f"they would read layer {others[-1]}'s without a word" if others else f"no {kind} K/V would be left"
    )
    who = (
        f"layer {readers[0]} shares" if len(readers) == 1 else f"layers {', '.join(map(str, readers))} share"
    )
    return f"{who} the K/V of layer {donor}, which the cut drops, so {fate}"


def check_rows(anatomy: Anatomy, rows: NDArray[np.int64]) -> None:
    """Refuse vocabulary rows that are out of order, or that lose a token the config refers to.

    Raises:
        InvalidCut: rows repeat, descend, are not the parent's, or leave out such a token.
        Unsupported: the per-layer embeddings have another vocabulary than the embedding.
    """
    dims = anatomy.dims
    if dims.ple and dims.ple_vocab != dims.vocab:
        raise Unsupported(
            f"the embedding has {dims.vocab} rows and the per-layer embeddings {dims.ple_vocab}: "
            "such a vocabulary can only stay whole"
        )
    if not len(rows) or rows[0] < 0 or rows[-1] >= dims.vocab or bool(np.any(np.diff(rows) <= 0)):
        raise InvalidCut(f"the rows to keep must ascend and lie within 0-{dims.vocab - 1}")
    needed = {i for i in special_ids(anatomy) if i < dims.vocab}
    lost = sorted(needed - set(rows.tolist()))
    if lost:
        raise InvalidCut(
            f"the rule of special tokens: the config refers to token {lost[0]}, whose row is cut"
        )


def special_ids(anatomy: Anatomy) -> set[int]:
    """Every token id that the slice's config.json will refer to."""
    ids = {key: anatomy.root_config[key] for key in ID_KEYS if key in anatomy.root_config}
    return token_ids(anatomy.config) | token_ids(ids)


def ffn_width(anatomy: Anatomy, spec: str) -> int | None:
    """The FFN width that `--ffn SPEC` asks for, before double-wide layers double it; None for all.

    A width must fill the same blocks of quantized numbers as the parent's does: it is a multiple of 256
    where the parent's is, else of 32 where the parent's is.

    Raises:
        InvalidCut: it is no number, not below the parent's, or no such multiple; the nearest are named.
    """
    if spec == "all":
        return None
    parent = int(anatomy.config["intermediate_size"])
    step = next((block for block in BLOCKS if parent % block == 0), 1)
    if not (spec.isascii() and spec.isdigit()) or len(spec) > 9:
        raise InvalidCut(f"--ffn {spec}: expected all, or a number of neurons that is a multiple of {step}")
    width = int(spec)
    if width == parent:
        return None
    if not 0 < width < parent or width % step:
        below = min(max(width // step * step, step), parent)
        options = sorted({below, min(below + step, parent)})
        raise InvalidCut(
            f"--ffn {spec}: the parent has {parent} neurons a layer, so it takes a multiple of {step} "
            f"up to {parent}; nearest: {' or '.join(map(str, options))}"
        )
    return width


def check_faithful(parent: Sequence[Layer | None], after: Anatomy, ffn: Mapping[int, int]) -> None:
    """Check the slice's config, as read back, against the parent's layers: the last of the checks.

    Args:
        parent: for each layer of the slice the parent's layer it is, with the attention that it shall have,
            or None for an identity layer.
        after: what the slice's config.json describes.
        ffn: the width that each of the parent's kept layers shall have.

    Raises:
        InvalidCut: the config would give a layer another type, size or donor than the parent's has.
    """
    for old, new in zip(parent, after.layers, strict=True):
        if old is None:
            continue
        donor = None if new.donor is None else parent[new.donor]
        found = (*_traits(new), new.ffn, None if donor is None else donor.index)
        expected = (*_traits(old), ffn[old.index], old.donor)
        if found != expected:
            raise InvalidCut(
                f"the slice's config would make layer {old.index} another layer: type, head size, heads, "
                f"K/V heads, sharing, values, window, FFN width and donor are {expected}, it says {found}"
            )


def _traits(layer: Layer) -> tuple[object, ...]:
    sizes = layer.head_dim, layer.heads, layer.kv_heads
    return layer.type, *sizes, layer.shared, layer.has_value, layer.windowed
