"""A fitted router on disk: `router.safetensors` for the arrays, `router.json` for the rest.

The folder is written atomically. Nothing is pickled, and the arrays' digest and shapes are checked on load.
Nothing here fits or embeds, except to check that an embedder is the same.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router.embedding.embedder import REFERENCE_TEXT, Embedder
from router.embedding.lazy import LazyEmbedder
from router.errors import BadRouter
from router.routing.model import ExitThresholds, LinearHead, Router, Stage, Thresholds
from router.routing.packing import pack, unpack
from slices import home
from slices.files import atomic

ARRAYS = "router.safetensors"
CONFIG = "router.json"
SCHEMA = 6
REFIT = "run `mom route fit`"
TOLERANCE = 0.05  # of reference logits, as a share of their spread

Finite = Annotated[float, Field(allow_inf_nan=False)]
Arrays = dict[str, NDArray[Any]]


class _ExitThresholds(BaseModel):
    min_margin: Finite
    min_in_domain: Finite
    ood_below: Finite


class _Thresholds(BaseModel):
    min_confidence: Finite
    min_margin: Finite
    min_in_domain: Finite


class _Schema(BaseModel):
    schema_version: int = Field(default=0, alias="schema")


class RouterConfig(BaseModel):
    """The contents of `router.json`: `embedders` of the heads, `stages` the number of heads of each stage."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = Field(default=SCHEMA, alias="schema")
    embedders: tuple[str, ...] = Field(min_length=1)
    classes: tuple[str, ...] = Field(min_length=2)
    stages: tuple[int, ...] = Field(min_length=1)
    exit_thresholds: tuple[_ExitThresholds, ...]
    thresholds: _Thresholds
    queries_sha256: str
    arrays_sha256: str


def default_folder() -> Path:
    """The default folder of the fitted router."""
    return home.home() / "router"


def save(router: Router, folder: Path) -> None:
    """Write `router` to `folder` atomically, replacing its contents."""
    from safetensors.numpy import save as to_bytes

    arrays = to_bytes(_arrays(router))
    config = RouterConfig(
        schema=SCHEMA,
        embedders=router.embedders,
        classes=router.classes,
        stages=tuple(stage.head_count for stage in router.stages),
        exit_thresholds=tuple(_ExitThresholds(**vars(stage.exit_thresholds)) for stage in router.stages),
        thresholds=_Thresholds(**vars(router.thresholds)),
        queries_sha256=router.queries_sha256,
        arrays_sha256=hashlib.sha256(arrays).hexdigest(),
    )
    with atomic.staged(folder, force=True) as partial:
        partial.mkdir()
        (partial / ARRAYS).write_bytes(arrays)
        text = config.model_dump_json(by_alias=True, indent=2) + "\n"
        (partial / CONFIG).write_text(text, encoding="utf-8")


def load(folder: Path) -> Router:
    """Read the router in `folder`.

    Raises:
        BadRouter: it is missing, of another schema, truncated or altered.
    """
    config = read_config(folder)
    arrays = _read_arrays(folder, config)
    return Router(
        classes=config.classes,
        heads=tuple(
            LinearHead(name, **{part: arrays[f"head.{at}.{part}"] for part in _HEAD})
            for at, name in enumerate(config.embedders)
        ),
        stages=tuple(
            Stage(
                pool_weights=arrays[f"stage.{at}.pool_weights"].astype(np.float64),
                prototypes=arrays[f"stage.{at}.prototypes"],
                labels=arrays[f"stage.{at}.labels"],
                score_quantiles=arrays[f"stage.{at}.score_quantiles"].astype(np.float64),
                exit_thresholds=ExitThresholds(**config.exit_thresholds[at].model_dump()),
            )
            for at in range(len(config.stages))
        ),
        thresholds=Thresholds(**config.thresholds.model_dump()),
        queries_sha256=config.queries_sha256,
    )


def read_config(folder: Path) -> RouterConfig:
    """Read and check `router.json` alone. Raises `BadRouter`."""
    path = folder / CONFIG
    if not path.is_file():
        raise BadRouter(f"no fitted router in {folder}: it has no {CONFIG}; {REFIT}")
    data = path.read_bytes()
    try:
        schema = _Schema.model_validate_json(data).schema_version
        if schema != SCHEMA:
            raise BadRouter(f"{path} has schema {schema}, expected {SCHEMA}; {REFIT}")
        config = RouterConfig.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadRouter(f"{path}: {where}: {first['msg']}; {REFIT}") from None
    counts = config.stages
    if len(config.exit_thresholds) != len(counts) or not all(0 < n <= len(config.embedders) for n in counts):
        raise BadRouter(f"{path}: its stages do not fit its {len(config.embedders)} embedders; {REFIT}")
    return config


def check_embedders(router: Router, embedders: Sequence[Embedder]) -> None:
    """Raise `BadRouter` unless `embedders` are those that `router` was fitted on, with the same vectors.

    One that is loaded later is checked then.
    """
    names = tuple(embedder.name for embedder in embedders)
    if names != router.embedders:
        raise BadRouter(
            f"the router was fitted with {', '.join(router.embedders)}, not {', '.join(names)}; {REFIT}"
        )
    for embedder, head in zip(embedders, router.heads, strict=True):
        if isinstance(embedder, LazyEmbedder):
            embedder.on_load(partial(_check_vectors, head))
        else:
            _check_vectors(head, embedder)


def _check_vectors(head: LinearHead, embedder: Embedder) -> None:
    vectors = embedder.embed([REFERENCE_TEXT])
    if vectors.shape[1] != head.weights.shape[1]:
        expected = f"the router expects {head.weights.shape[1]}"
        raise BadRouter(f"{embedder.name} has {vectors.shape[1]} dimensions, {expected}; {REFIT}")
    error = float(np.abs(head.logits(vectors)[0] - head.reference_logits).max())
    if error > TOLERANCE * max(float(np.ptp(head.reference_logits)), 1e-6):
        raise BadRouter(f"{embedder.name} now gives other vectors than when the router was fitted; {REFIT}")


# The arrays of a head and of a stage, and their axes: c classes, d dimensions, o pooled opinions,
# n prototypes; q is free.
_HEAD = {"weights": "cd", "bias": "c", "reference_logits": "c"}
_STAGE = {"pool_weights": "o", "prototypes": "nd", "labels": "n", "score_quantiles": "q"}


def _arrays(router: Router) -> Arrays:
    packed = [pack(name, array) for name, array in _named(router).items()]
    return {name: array for arrays in packed for name, array in arrays.items()}


def _named(router: Router) -> Arrays:
    parts = [(f"head.{at}", head, _HEAD) for at, head in enumerate(router.heads)]
    parts += [(f"stage.{at}", stage, _STAGE) for at, stage in enumerate(router.stages)]  # type: ignore[misc]
    return {
        f"{where}.{name}": np.ascontiguousarray(getattr(part, name))
        for where, part, names in parts
        for name in names
    }


def _read_arrays(folder: Path, config: RouterConfig) -> Arrays:
    from safetensors.numpy import load as from_bytes

    path = folder / ARRAYS
    if not path.is_file():
        raise BadRouter(f"{folder} has no {ARRAYS}; {REFIT}")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != config.arrays_sha256:
        raise BadRouter(f"{path} does not match {CONFIG}: its sha256 differs; {REFIT}")
    arrays: Arrays = unpack(from_bytes(data))
    _check_shapes(path, arrays, config)
    return arrays


def _check_shapes(path: Path, arrays: Arrays, config: RouterConfig) -> None:
    expected_axes = {
        f"head.{at}.{name}": axes for at in range(len(config.embedders)) for name, axes in _HEAD.items()
    }
    expected_axes |= {
        f"stage.{at}.{name}": axes for at in range(len(config.stages)) for name, axes in _STAGE.items()
    }
    if missing := sorted(set(expected_axes) - set(arrays)):
        raise BadRouter(f"{path} lacks {', '.join(missing)}; {REFIT}")
    for name, axes in expected_axes.items():
        kind, at = name.split(".")[:2]
        heads = config.stages[int(at)] if kind == "stage" else int(at) + 1
        weights = arrays[f"head.{heads - 1}.weights"]
        sizes = {"c": len(config.classes), "d": weights.shape[-1], "o": heads + 1}
        if kind == "stage":
            sizes["n"] = len(arrays[f"stage.{at}.prototypes"])
        shape = arrays[name].shape
        if name.endswith(".prototypes") and len(shape) == 2 and not shape[0]:
            continue  # a stage of sparse heads has none
        expected = tuple(sizes.get(axis, size) for axis, size in zip(axes, shape, strict=False))
        if len(shape) != len(axes) or shape != expected:
            raise BadRouter(f"{path}: {name} has shape {shape}, expected {expected}; {REFIT}")
        if not np.isfinite(arrays[name]).all():
            raise BadRouter(f"{path}: {name} has values that are not finite; {REFIT}")
        if name.endswith(".labels") and not np.isin(arrays[name], np.arange(len(config.classes))).all():
            raise BadRouter(f"{path}: {name} has labels of no class; {REFIT}")
