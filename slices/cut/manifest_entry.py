"""The manifest of a finished cut, and the JSON of `mom slice --json`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.architecture.kv_cache import kv_cache_bytes
from slices.checkpoint import Checkpoint, open_checkpoint
from slices.cut.plan import Plan
from slices.cut.request import SliceRequest
from slices.text.corpus import Corpus, Part
from slices.text.use import text_use
from slices.versions import versions


def build_manifest(
    request: SliceRequest,
    checkpoint: Checkpoint,
    plan: Plan,
    text: Corpus | None,
    notes: Sequence[str],
    seconds: float,
) -> manifest.Manifest:
    """The manifest of a slice made in `seconds` on `text` (None: the choice needed no text)."""
    calibration = manifest.Calibration(source="none")
    if text is not None:
        calibration = manifest.Calibration(
            source=text.source, sha256=text.sha256, documents=len(text.documents), bytes=text.nbytes
        )
    return manifest.Manifest(
        schema=manifest.SCHEMA,
        name=request.slice_name,
        domain=request.domain,
        created=manifest.now(),
        parent=manifest.Parent(
            model=request.model,
            model_type=plan.anatomy.model_type,
            headers_sha256=checkpoint.headers_sha256,
            bytes=checkpoint.nbytes,
        ),
        recipe={
            "layers": request.layers,
            "vocab": request.vocab,
            "ffn": request.ffn,
            "ffn_rank": str(request.ffn_rank) if request.ffn != "all" else None,
            "portable": request.portable,
            "rope_theta": None if plan.selection.theta is None else str(plan.selection.theta),
            "windowed_layers": plan.windowed_layers,
            "identity_layers": plan.identity_layers,
            "removed": [asdict(removal) for removal in plan.selection.removed],
            "repair": None if plan.selection.repair is None else plan.selection.repair.to_json(),
            "corpus": [str(path.absolute()) for path in request.corpus],
            "seconds": round(seconds, 2),
        },
        layers=list(plan.layers),
        attention="keep" if plan.selection.theta is None else "sliding",
        vocabulary=plan.vocabulary,
        parameters=plan.parameters,
        bytes=plan.nbytes,
        calibration=calibration,
        texts=[] if text is None else [text_use("cut", text, Part.CALIBRATION)],
        seed=request.seed,
        versions=versions(),
        notes=list(notes),
    )


def summary(request: SliceRequest, made: manifest.Manifest) -> dict[str, Any]:
    """What `mom slice --json` prints."""
    return {
        "path": str(request.target),
        "name": made.name,
        "layers": made.layers,
        "attention": made.attention,
        "rope_theta": made.recipe["rope_theta"],
        "windowed_layers": made.recipe["windowed_layers"],
        "kv_cache": asdict(kv_cache_bytes(read_anatomy(open_checkpoint(request.target).config))),
        "identity_layers": made.recipe["identity_layers"],
        "removed": made.recipe["removed"],
        "repair": made.recipe["repair"],
        "vocabulary": made.vocabulary,
        "parameters": json.loads(made.parameters.model_dump_json()),
        "bytes": made.bytes,
        "seconds": made.recipe["seconds"],
        "calibration": json.loads(made.calibration.model_dump_json()),
        "notes": made.notes,
    }
