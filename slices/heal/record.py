"""What slice.json records of a healing run."""

from typing import Any

from slices import manifest
from slices.checkpoint import fingerprint, open_checkpoint
from slices.device import Device
from slices.errors import RunFailed
from slices.heal.curve import EvalPoint
from slices.heal.loop import EarlyStop
from slices.heal.request import HealRequest
from slices.heal.run_state import RunState
from slices.heal.text import HealText
from slices.text.corpus import Part
from slices.text.use import text_use
from slices.versions import versions


def healed_manifest(
    request: HealRequest,
    device: Device,
    text: HealText,
    run: RunState,
    points: tuple[EvalPoint, EvalPoint, EvalPoint],
    stopped: EarlyStop | None,
) -> manifest.Manifest:
    """The manifest of the healed slice: the original's, without what was measured of the old weights.

    Args:
        points: the slice as given and as healed on verdict text, and as healed on selection text.
    """
    before, after, selected = points
    original = manifest.read(request.slice)
    healing: dict[str, Any] = {
        "slice": original.name,
        "slice_folder": str(request.slice.resolve()),
        "slice_fingerprint": fingerprint(open_checkpoint(request.slice)),
        "settings": request.config.to_json(),
        "teacher": "cached" if request.teacher else "parent",
        "device": device.name,
        "threads": device.threads,
        "compute": str(device.compute).removeprefix("torch."),
        "text": {"source": request.text.source, "sha256": request.text.sha256, "tokens_sha256": text.sha256},
        "heldout": {"sha256": text.verdict.sha256, "documents": text.verdict.documents},
        "steps": run.step,
        "tokens": run.curve[-1].tokens,
        "seconds": round(run.seconds, 1),
        "stopped": stopped.reason if stopped else None,
        "before": before.to_json(),
        "after": after.to_json(),
        "selection": {"before": run.curve[0].to_json(), "after": selected.to_json()},
        "curve": [point.to_json() for point in run.curve],
    }
    return original.model_copy(
        update={
            "name": request.target.name,
            "created": manifest.now(),
            "quantized": [],
            "measurements": [],
            "verdicts": [],
            "versions": versions(),
            "texts": [*original.texts, *_text_uses(request)],
            "healing": healing,
        }
    )


def _text_uses(request: HealRequest) -> list[manifest.TextUse]:
    """Training reads calibration text; the checkpoint is chosen on selection text."""
    steps = {"heal": Part.CALIBRATION, "checkpoint": Part.SELECTION}
    return [text_use(step, request.text.part(part), part) for step, part in steps.items()]


class NoImprovement(RunFailed):
    """A run whose best weights are no better than the original's."""


def no_improvement(
    before: EvalPoint, after: EvalPoint, stopped: EarlyStop | None, steps: int
) -> NoImprovement:
    """The error of such a run, with figures."""
    reason = f"{stopped.reason}. " if stopped else ""
    return NoImprovement(
        f"{reason}Healing made no better slice on held-out text, so nothing is written: KL "
        f"{before.kl.value:.4f} before and {after.kl.value:.4f} at best (step {after.step} of {steps}), "
        f"bits per byte {before.bits_per_byte.value:.4f} and {after.bits_per_byte.value:.4f}. A lower "
        "--lr, another --hard-label-weight or more text may help"
    )
