"""A fitted router on disk: `router.safetensors` for the arrays, `router.json` for the rest.

The folder is written whole or not at all. Nothing is pickled, and what is read is checked against
its digest before it is used. Nothing here fits or embeds, except to check that an embedder is the same.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router.embedding.embedder import REFERENCE_TEXT, Embedder
from router.errors import BadRouter
from router.routing.model import Head, Router, Stage, Sure, Thresholds
from slices import home
from slices.files import atomic

ARRAYS = "router.safetensors"
CARD = "router.json"
REFIT = "run `mom route fit`"
SAME = 0.05  # of the spread of a head's logits for the probe: as far as they may be off

Finite = Annotated[float, Field(allow_inf_nan=False)]
Arrays = dict[str, NDArray[Any]]


class _Sure(BaseModel):
    lead: Finite
    above: Finite
    below: Finite


class _Limits(BaseModel):
    confidence: Finite
    margin: Finite
    belonging: Finite


class Card(BaseModel):
    """What `router.json` says: `embedders` has a head each, `stages` says how many heads each pools."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[4] = Field(default=4, alias="schema")
    embedders: tuple[str, ...] = Field(min_length=1)
    classes: tuple[str, ...] = Field(min_length=2)
    stages: tuple[int, ...] = Field(min_length=1)
    sure: tuple[_Sure, ...]
    thresholds: _Limits
    queries_sha256: str
    arrays_sha256: str


def default_folder() -> Path:
    """Where the router lives unless told otherwise."""
    return home.home() / "router"


def save(router: Router, folder: Path) -> None:
    """Write `router` to `folder`, replacing what was there, in one step."""
    from safetensors.numpy import save as to_bytes

    arrays = to_bytes(_arrays(router))
    limits = router.thresholds
    card = Card(
        schema=4,
        embedders=router.embedders,
        classes=router.classes,
        stages=tuple(stage.heads for stage in router.stages),
        sure=tuple(_Sure(**vars(stage.sure)) for stage in router.stages),
        thresholds=_Limits(**vars(limits)),
        queries_sha256=router.queries_sha256,
        arrays_sha256=hashlib.sha256(arrays).hexdigest(),
    )
    with atomic.staged(folder, force=True) as partial:
        partial.mkdir()
        (partial / ARRAYS).write_bytes(arrays)
        (partial / CARD).write_text(card.model_dump_json(by_alias=True, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> Router:
    """Read the router in `folder`.

    Raises:
        BadRouter: it is not there, of another version, cut short or altered.
    """
    card = read_card(folder)
    arrays = _read_arrays(folder, card)
    heads = [
        Head(name, *(arrays[f"head.{at}.{part}"] for part in ("weights", "bias", "probe")))
        for at, name in enumerate(card.embedders)
    ]
    stages = [
        Stage(
            arrays[f"stage.{at}.shares"].astype(np.float64),
            arrays[f"stage.{at}.prototypes"],
            arrays[f"stage.{at}.labels"],
            arrays[f"stage.{at}.quantiles"].astype(np.float64),
            Sure(**card.sure[at].model_dump()),
        )
        for at in range(len(card.stages))
    ]
    limits = Thresholds(**card.thresholds.model_dump())
    return Router(card.classes, tuple(heads), tuple(stages), limits, card.queries_sha256)


def read_card(folder: Path) -> Card:
    """Read and check `router.json` alone. Raises `BadRouter`."""
    path = folder / CARD
    if not path.is_file():
        raise BadRouter(f"no fitted router in {folder}: it has no {CARD}; {REFIT}")
    try:
        card = Card.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadRouter(f"{path}: {where}: {first['msg']}; {REFIT}") from None
    if len(card.sure) != len(card.stages) or not all(0 < n <= len(card.embedders) for n in card.stages):
        raise BadRouter(f"{path}: its stages do not fit its {len(card.embedders)} embedders; {REFIT}")
    return card


def check_embedders(router: Router, embedders: Sequence[Embedder]) -> None:
    """Raise `BadRouter` unless `embedders` give the vectors that `router` was fitted on."""
    names = tuple(embedder.name for embedder in embedders)
    if names != router.embedders:
        raise BadRouter(
            f"the router was fitted with {', '.join(router.embedders)}, not {', '.join(names)}; {REFIT}"
        )
    for embedder, head in zip(embedders, router.heads, strict=True):
        vectors = embedder.embed([REFERENCE_TEXT])
        if vectors.shape[1] != head.weights.shape[1]:
            expected = f"the router expects {head.weights.shape[1]}"
            raise BadRouter(f"{embedder.name} gives {vectors.shape[1]} numbers, {expected}; {REFIT}")
        off = float(np.abs(head.logits(vectors)[0] - head.probe).max())
        if off > SAME * max(float(np.ptp(head.probe)), 1e-6):
            raise BadRouter(
                f"{embedder.name} now gives other vectors than when the router was fitted; {REFIT}"
            )


# The arrays of a head and of a stage, and their shapes: c classes, d dimensions, o opinions, n prototypes;
# q is free.
_HEAD = {"weights": "cd", "bias": "c", "probe": "c"}
_STAGE = {"shares": "o", "prototypes": "nd", "labels": "n", "quantiles": "q"}


def _arrays(router: Router) -> Arrays:
    parts = [(f"head.{at}", head, _HEAD) for at, head in enumerate(router.heads)]
    parts += [(f"stage.{at}", stage, _STAGE) for at, stage in enumerate(router.stages)]  # type: ignore[misc]
    return {
        f"{where}.{name}": np.ascontiguousarray(getattr(part, name))
        for where, part, names in parts
        for name in names
    }


def _read_arrays(folder: Path, card: Card) -> Arrays:
    from safetensors.numpy import load as from_bytes

    path = folder / ARRAYS
    if not path.is_file():
        raise BadRouter(f"{folder} has no {ARRAYS}; {REFIT}")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != card.arrays_sha256:
        raise BadRouter(f"{path} is not the file that {CARD} was written for: its sha256 differs; {REFIT}")
    arrays: Arrays = from_bytes(data)
    _check_shapes(path, arrays, card)
    return arrays


def _check_shapes(path: Path, arrays: Arrays, card: Card) -> None:
    wanted = {f"head.{at}.{name}": axes for at in range(len(card.embedders)) for name, axes in _HEAD.items()}
    wanted |= {f"stage.{at}.{name}": axes for at in range(len(card.stages)) for name, axes in _STAGE.items()}
    if missing := sorted(set(wanted) - set(arrays)):
        raise BadRouter(f"{path} lacks {', '.join(missing)}; {REFIT}")
    for name, axes in wanted.items():
        kind, at = name.split(".")[:2]
        heads = card.stages[int(at)] if kind == "stage" else int(at) + 1
        weights = arrays[f"head.{heads - 1}.weights"]
        sizes = {"c": len(card.classes), "d": weights.shape[-1], "o": heads + 1}
        if kind == "stage":
            sizes["n"] = len(arrays[f"stage.{at}.prototypes"])
        found = arrays[name].shape
        expected = tuple(sizes.get(axis, size) for axis, size in zip(axes, found, strict=False))
        if len(found) != len(axes) or found != expected:
            raise BadRouter(f"{path}: {name} has shape {found}, expected {expected}; {REFIT}")
        if not np.isfinite(arrays[name]).all():
            raise BadRouter(f"{path}: {name} holds numbers that are not finite; {REFIT}")
        if name.endswith(".labels") and not np.isin(arrays[name], np.arange(len(card.classes))).all():
            raise BadRouter(f"{path}: {name} holds numbers of no class; {REFIT}")
