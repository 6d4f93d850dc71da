"""A fitted router on disk: `router.safetensors` for the arrays, `router.json` for the rest.

The folder is written whole or not at all. Nothing is pickled, and what is read is checked against
its digest before it is used. Nothing here fits or embeds, except to check that an embedder is the same.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router.decide import Router, Thresholds
from router.embed import PROBE, Embedder
from router.errors import BadRouter
from slices import atomic, home

ARRAYS = "router.safetensors"
CARD = "router.json"
REFIT = "run `mom route fit`"

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Limits(BaseModel):
    confidence: Finite
    margin: Finite
    distance: Finite


class Card(BaseModel):
    """What `router.json` says."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    embedder: str
    dim: int = Field(gt=0)
    classes: tuple[str, ...] = Field(min_length=2)
    temperature: float = Field(gt=0, allow_inf_nan=False)
    thresholds: _Limits
    queries_sha256: str
    arrays_sha256: str


def default_folder() -> Path:
    """Where the router lives unless told otherwise."""
    return home.home() / "router"


def save(router: Router, folder: Path) -> None:
    """Write `router` to `folder`, replacing what was there, in one step."""
    from safetensors.numpy import save as to_bytes

    arrays = to_bytes({name: np.ascontiguousarray(getattr(router, name)) for name in _SHAPES})
    limits = router.thresholds
    card = Card(
        schema=1,
        embedder=router.embedder,
        dim=router.weights.shape[1],
        classes=router.classes,
        temperature=router.temperature,
        thresholds=_Limits(confidence=limits.confidence, margin=limits.margin, distance=limits.distance),
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
    return Router(
        embedder=card.embedder,
        classes=card.classes,
        weights=arrays["weights"],
        bias=arrays["bias"],
        temperature=card.temperature,
        prototypes=arrays["prototypes"],
        labels=arrays["labels"].astype(np.int32),
        thresholds=Thresholds(**card.thresholds.model_dump()),
        probe=arrays["probe"],
        queries_sha256=card.queries_sha256,
    )


def read_card(folder: Path) -> Card:
    """Read and check `router.json` alone. Raises `BadRouter`."""
    path = folder / CARD
    if not path.is_file():
        raise BadRouter(f"no fitted router in {folder}: it has no {CARD}; {REFIT}")
    try:
        return Card.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadRouter(f"{path}: {where}: {first['msg']}; {REFIT}") from None


def check_embedder(router: Router, embedder: Embedder) -> None:
    """Raise `BadRouter` unless `embedder` gives the vectors that `router` was fitted on."""
    if embedder.name != router.embedder:
        raise BadRouter(
            f"the router was fitted with the embedder {router.embedder!r}, not {embedder.name!r}; {REFIT}"
        )
    probe = embedder.embed([PROBE])[0]
    if probe.shape != router.probe.shape:
        raise BadRouter(
            f"{embedder.name} gives {len(probe)} numbers, the router expects {len(router.probe)}; {REFIT}"
        )
    if float(probe @ router.probe) < 0.99:
        raise BadRouter(f"{embedder.name} now gives other vectors than when the router was fitted; {REFIT}")


# The arrays in the file and their shapes: c classes, d dimensions, n examples.
_SHAPES = {"weights": "cd", "bias": "c", "prototypes": "nd", "labels": "n", "probe": "d"}


def _read_arrays(folder: Path, card: Card) -> dict[str, NDArray[np.float32]]:
    from safetensors.numpy import load as from_bytes

    path = folder / ARRAYS
    if not path.is_file():
        raise BadRouter(f"{folder} has no {ARRAYS}; {REFIT}")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != card.arrays_sha256:
        raise BadRouter(f"{path} is not the file that {CARD} was written for: its sha256 differs; {REFIT}")
    arrays: dict[str, NDArray[np.float32]] = from_bytes(data)
    _check_shapes(path, arrays, card)
    return arrays


def _check_shapes(path: Path, arrays: dict[str, NDArray[np.float32]], card: Card) -> None:
    if missing := sorted(set(_SHAPES) - set(arrays)):
        raise BadRouter(f"{path} lacks {', '.join(missing)}; {REFIT}")
    sizes = {"c": len(card.classes), "d": card.dim, "n": len(arrays["labels"])}
    for name, axes in _SHAPES.items():
        expected = tuple(sizes[axis] for axis in axes)
        if arrays[name].shape != expected:
            raise BadRouter(f"{path}: {name} has shape {arrays[name].shape}, expected {expected}; {REFIT}")
    labels = arrays["labels"]
    if labels.size and not 0 <= labels.min() <= labels.max() < sizes["c"]:
        raise BadRouter(f"{path}: labels name classes outside 0 to {sizes['c'] - 1}; {REFIT}")
