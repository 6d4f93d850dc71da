"""What slice.json says of a ladder: every trial beside the file that was kept, and that file's values."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from slices import manifest
from slices.measure.divergence import Divergence
from slices.measure.quant_trials import Goal, QuantTrial


def record_ladder(
    file: Path, domain: str, goal: Goal, trials: Sequence[QuantTrial], measured: Divergence
) -> None:
    """Write the ladder into the slice.json beside `file`, if it knows that file; over older values.

    Args:
        measured: the file's values, of text that did not choose its type where there is such text.
    """
    folder = file.parent
    if not (folder / manifest.FILE).is_file():
        return
    slice_ = manifest.read(folder)
    ladder_fields = {"ladder": [trial.to_json() for trial in trials], "goal": asdict(goal)}
    quantized = [q.model_copy(update=ladder_fields) if q.file == file.name else q for q in slice_.quantized]
    if quantized == slice_.quantized:
        return
    new = _measurements(file.name, domain, measured)
    replaced = {(each.variant, each.domain, each.metric, each.data) for each in new}
    kept = [m for m in slice_.measurements if (m.variant, m.domain, m.metric, m.data) not in replaced]
    update = {"quantized": quantized, "measurements": [*kept, *new]}
    manifest.write(folder, slice_.model_copy(update=update))


def _measurements(file: str, domain: str, found: Divergence) -> list[manifest.Measurement]:
    values = (
        ("bf16", "bits_per_byte", found.reference_bits_per_byte),
        (file, "bits_per_byte", found.bits_per_byte),
        (file, "kl", found.kl),
        (file, "same_top1", found.same_top1),
    )
    return [
        manifest.Measurement(
            variant=variant,
            domain=domain,
            metric=metric,
            value=each.value,
            stderr=each.stderr,
            data=found.data,
        )
        for variant, metric, each in values
    ]
